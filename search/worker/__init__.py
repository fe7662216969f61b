"""One process at work on a study: sets the search up, runs the trials it is told to, and writes down what came of them.

A spec and run options come in, trials in the database and weights on disk go out.
Imports `samplers`, `database`, `study`, `trial` and what lies below; knows nothing of the processes beside it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
