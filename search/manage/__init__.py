"""Looking after studies and the machine: status, stop, retry, delete, doctor.

A database and names come in, a table, a queued trial, a deleted study or a list of findings goes out.
Imports `database` and what lies below.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
