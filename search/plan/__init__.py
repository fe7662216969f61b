"""What a budget buys, told before anything starts: measured costs, then many simulated searches.

A spec and run options come in; foreseen time, trials and steps with their ranges go out.
Imports `worker` and what lies below; the simulator drives the same policy as the workers (`search/scheduler`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
