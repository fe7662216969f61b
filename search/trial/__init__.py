"""One training run, from a config to scored weights: loss, optimizer, schedule, sparsity, checkpoints, recovery.

A `TrialConfig` and a `Split` of pairs come in; the best weights, their score and a resumable state go out.
Imports `inference`, `data` and `models`; knows no study and no database.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
