from .plan import make_plan as make_plan
from .table import show_plan as show_plan
