"""Starting workers: in this process, as processes of this machine, on others that join, or on a Ray cluster.

A spec, run options and devices come in; the outcome of the run goes out, and events of the workers are displayed.
Imports `worker` and what lies below.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
