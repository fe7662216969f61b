"""Where images come from: the list of known data sources.

Each config opens to a `Split`, whose two `PairSet`s hold decoded pairs of degraded and clean images.
"""

from typing import Annotated

from pydantic import Field

from data.demo import DemoConfig
from data.images import DataError, Pair
from data.pairs import PairsConfig
from data.split import PairSet, Split
from data.synthetic import SyntheticConfig

DataConfig = Annotated[PairsConfig | SyntheticConfig | DemoConfig, Field(discriminator="kind")]

__all__ = [
    "DataConfig",
    "DataError",
    "DemoConfig",
    "Pair",
    "PairSet",
    "PairsConfig",
    "Split",
    "SyntheticConfig",
]
