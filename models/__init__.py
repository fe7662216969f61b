"""The known models."""

from typing import Annotated

from pydantic import Field

from models.classical import Classical, ClassicalConfig
from models.dncnn import DnCNN, DnCNNConfig
from models.kbnet_s import KBNetS, KBNetSConfig
from models.nafnet import NAFNet, NAFNetConfig
from models.pix2pix import Pix2Pix, Pix2PixConfig
from models.srresnet import SRResNet, SRResNetConfig
from models.unet import UNet, UNetConfig

ModelConfig = Annotated[
    KBNetSConfig | NAFNetConfig | DnCNNConfig | UNetConfig | SRResNetConfig | Pix2PixConfig | ClassicalConfig,
    Field(discriminator="kind"),
]

__all__ = [
    "Classical",
    "ClassicalConfig",
    "DnCNN",
    "DnCNNConfig",
    "KBNetS",
    "KBNetSConfig",
    "ModelConfig",
    "NAFNet",
    "NAFNetConfig",
    "Pix2Pix",
    "Pix2PixConfig",
    "SRResNet",
    "SRResNetConfig",
    "UNet",
    "UNetConfig",
]
