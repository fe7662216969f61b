"""Analysis of a finished or running study: the winner's validation, rankings, effects of settings, ablations.

Studies of the database come in, sentences, tables and pictures' numbers go out.
Imports `launch`, `export`, `worker`, `statistics` and what lies below.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
