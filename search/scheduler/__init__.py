"""Which trial goes on, and when a search is over: a pure function of what is known about the trials and of the time.

Rules and a snapshot of the trials come in; the next action goes out: begin, promote, prune, confirm, finish, wait.
Imports the standard library and pydantic alone, so that workers, the simulator and the benchmarks decide alike.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
