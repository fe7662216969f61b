from .facts import gather_facts as gather_facts
from .html import render_report as render_report
from .markdown import report_markdown as report_markdown
