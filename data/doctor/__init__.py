"""The pair doctor: everything that is wrong with a folder of pairs, before a search is spent on it.

A folder comes in; findings, the worst first, or a repaired copy go out.
Imports `data.sources`, `data.likeness`, `data.files` and `data.cropping`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
