"""optuna-dashboard on a database of studies, with notes, pictures and access control.

A database URL comes in, a web server goes out.
Imports `report`, `analysis` and what lies below.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
