"""From decoded images to training crops: where they are cut, how they are turned and varied.

A seed, a step and image sizes come in, crops go out, always the same ones.
Imports `data.files` alone.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
