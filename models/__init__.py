"""The known models."""

from typing import Annotated

from pydantic import Field

from models.classical import Classical, ClassicalConfig
from models.cost import count_macs, count_parameters
from models.dncnn import DnCNN, DnCNNConfig
from models.kbnet_s import KBNetS, KBNetSConfig
from models.luminance import Luminance, LuminanceConfig
from models.nafnet import NAFNet, NAFNetConfig
from models.patch_critic import PatchCriticConfig, smallest_patch
from models.pix2pix import Pix2Pix, Pix2PixConfig
from models.srresnet import SRResNet, SRResNetConfig
from models.unet import UNet, UNetConfig
from models.widening import any_wider_or_deeper, is_wider_or_deeper

NetworkConfig = KBNetSConfig | NAFNetConfig | DnCNNConfig | UNetConfig | SRResNetConfig | Pix2PixConfig

# Luminance is restored by one of the networks, which are all known only here.
LuminanceConfig.model_rebuild()

ModelConfig = Annotated[NetworkConfig | LuminanceConfig | ClassicalConfig, Field(discriminator="kind")]

__all__ = [
    "Classical",
    "ClassicalConfig",
    "DnCNN",
    "DnCNNConfig",
    "KBNetS",
    "KBNetSConfig",
    "Luminance",
    "LuminanceConfig",
    "ModelConfig",
    "NAFNet",
    "NAFNetConfig",
    "NetworkConfig",
    "PatchCriticConfig",
    "Pix2Pix",
    "Pix2PixConfig",
    "SRResNet",
    "SRResNetConfig",
    "UNet",
    "UNetConfig",
    "any_wider_or_deeper",
    "count_macs",
    "count_parameters",
    "is_wider_or_deeper",
    "smallest_patch",
]
