"""Which images belong together: the same, nearly the same, or on one background. And how one lies on another.

Pixels come in; group numbers and shifts go out. Imports `data.files`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
