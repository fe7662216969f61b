"""Samplers that propose the settings of the next trial: those of Optuna, a Gaussian process, and a local search.

A study's spec and its earlier trials come in, values for the open settings of the recipe go out.
Imports `database`, `study` and `scheduler`; no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
