from .evaluate import EvaluateOptions as EvaluateOptions
from .evaluate import evaluate_model as evaluate_model
from .files import RestoreOptions as RestoreOptions
from .files import restore_files as restore_files
from .restorer import RestorerOptions as RestorerOptions
