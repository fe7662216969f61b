"""Where images come from: the list of known data sources.

Each config opens to a `Split`, whose two `PairSet`s hold decoded pairs of degraded and clean images.
"""

from data.images import DataError, Pair
from data.pairs import PairsConfig
from data.split import PairSet, Split

__all__ = ["DataError", "Pair", "PairSet", "PairsConfig", "Split"]
