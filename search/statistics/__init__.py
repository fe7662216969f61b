"""Certainty of differences: bootstrap intervals over images, and effects of settings over trials.

Plain numbers with their groups come in, means with intervals and chances go out.
Imports `inference` for its scores, and knows nothing of studies.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
