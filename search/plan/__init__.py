"""Prediction of a search before it starts: costs are measured, then the search is simulated many times.

A spec and run options come in; expected time, trials and steps with their ranges go out.
Imports `worker` and what lies below; the simulator drives the same policy as the workers (`search/scheduler`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
