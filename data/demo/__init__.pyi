from .source import DemoConfig as DemoConfig
