"""Where pairs come from: folders of pairs, clean images that are degraded here, and how they are split.

The settings of a source come in, a `Split` of a training and a validation set goes out.
Imports `data.likeness`, `data.files` and `data.cropping`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
