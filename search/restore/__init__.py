"""Using an exported model: restoring files and folders, and scoring them against clean originals.

An exported model and image files come in, restored files or a table of scores go out.
Imports `export`, `inference` and what lies below; knows no study.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
