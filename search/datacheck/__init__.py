"""The command `check`: the pair doctor's findings as text, JSON or a page, and the repaired copy.

A folder of pairs comes in, findings and an exit code go out.
Imports `data` alone.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
