"""Where the settings of the next trial come from: Optuna samplers, the project's own Gaussian process among them.

A study's spec and its earlier trials come in, values for the open leaves of the recipe go out.
Imports `database`, `study` and `scheduler`; no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
