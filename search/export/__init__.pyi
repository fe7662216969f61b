from .export import ExportChoice as ExportChoice
from .export import ExportOptions as ExportOptions
from .export import export_trials as export_trials
from .export import load_model as load_model
from .formats import parse_formats as parse_formats
from .load import load_exported as load_exported
from .model_card import card_table as card_table
from .settings import ExportedModel as ExportedModel
