"""Single image files: headers, pixels, pages, and writing them whole or not at all.

A path comes in, arrays or a tensor go out, or a `DataError` that names the file and what is allowed.
Imports nothing of the project.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
