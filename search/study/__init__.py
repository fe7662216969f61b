"""Studies: a study's file, its search space, its limits and its budget.

A `.toml` file or a name comes in, a checked `StudySpec` goes out, or one line that says what is wrong with the file.
Imports `trial` and what lies below; knows no database and no worker.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
