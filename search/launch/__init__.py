"""Starting workers: in this process, as processes of this machine, on others that join, or on a Ray cluster.

A spec, run options and devices come in; the outcome of the whole run goes out, and what workers report is shown.
Imports `worker` and what lies below.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
