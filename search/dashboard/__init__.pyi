from .server import DashboardOptions as DashboardOptions
from .server import serve_dashboard as serve_dashboard
