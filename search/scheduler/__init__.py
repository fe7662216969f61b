"""The scheduler: a pure function that decides which trial continues, and when a search ends.

Rules, a snapshot of the trials and the time come in; the next action goes out: begin, promote, prune, finish, wait.
Imports the standard library and pydantic only. Workers, the simulator and the benchmarks all call it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
