"""Where images come from: the list of known data sources.

Each config opens to a `Split`, whose two `PairSet`s hold decoded pairs of degraded and clean images.
"""

from typing import Annotated

from pydantic import Field

from data.demo import DemoConfig
from data.files import DataError, Pair
from data.groups import image_groups
from data.loader import TrainLoader
from data.sources import PairsConfig, PairSet, Split, SyntheticConfig

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
    "TrainLoader",
    "image_groups",
]
