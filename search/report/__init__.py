"""A study as one page: its facts gathered, drawn as HTML with inline charts, or written as Markdown.

A study of the database comes in, one file without outside references goes out.
Imports `analysis` and what lies below.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
