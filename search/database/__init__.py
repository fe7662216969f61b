"""Reading and writing studies and trials in SQLite or PostgreSQL, through Optuna's storage.

Facts come in and are written in transactions; typed records, snapshots for the scheduler and leases go out.
Imports `study`, `scheduler` and what lies below; the only room that uses private parts of Optuna.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
