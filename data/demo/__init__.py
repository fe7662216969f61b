"""The embedded demo: photographs and rendered pages made into poor scans, the same on every machine.

Nothing but a folder to write to comes in, pairs of PNG files go out.
Imports `data.sources` and `data.files`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
