"""A worker: one process that sets up a search, trains trials as the scheduler decides, and records the results.

A spec and run options come in, trials in the database and weights on disk go out.
Imports `samplers`, `database`, `study`, `trial` and what lies below; knows nothing of other processes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
