from .report import CheckOptions as CheckOptions
from .report import run_check as run_check
from .report import warnings_for_a_search as warnings_for_a_search
