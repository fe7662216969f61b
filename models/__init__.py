"""The known models."""

from typing import Annotated

from pydantic import Field

from models.dncnn import DnCNN, DnCNNConfig
from models.kbnet_s import KBNetS, KBNetSConfig

ModelConfig = Annotated[KBNetSConfig | DnCNNConfig, Field(discriminator="kind")]

__all__ = ["DnCNN", "DnCNNConfig", "KBNetS", "KBNetSConfig", "ModelConfig"]
