"""Losses on pixels, their differences, windows and spectra, and their settings."""

import math
from typing import Literal

import pytorch_msssim
import torch
from pydantic import Field
from torch import Tensor, nn

from search.trial.losses.base import ImageLossConfig

Window = Literal[3, 5, 7, 9, 11]


class L1Config(ImageLossConfig):
    """Mean absolute error."""

    kind: Literal["l1"] = "l1"

    def build(self) -> nn.Module:
        return nn.L1Loss()


class MSEConfig(ImageLossConfig):
    """Mean squared error."""

    kind: Literal["mse"] = "mse"

    def build(self) -> nn.Module:
        return nn.MSELoss()


class CharbonnierConfig(ImageLossConfig):
    """A smooth L1: sqrt(difference^2 + epsilon^2), averaged."""

    kind: Literal["charbonnier"] = "charbonnier"
    epsilon: float = Field(
        1e-3, gt=0, le=1, description="width of the rounded tip, in units of image intensity"
    )

    def build(self) -> nn.Module:
        return Charbonnier(self.epsilon)


class PSNRConfig(ImageLossConfig):
    """Negative PSNR in dB, per image (the loss of NAFNet's published recipes)."""

    kind: Literal["psnr"] = "psnr"

    def build(self) -> nn.Module:
        return NegativePSNR()


class SSIMConfig(ImageLossConfig):
    """1 - SSIM: local means, contrasts and correlations in place of pixels."""

    kind: Literal["ssim"] = "ssim"
    window: Window = Field(11, description="side in pixels of the Gaussian window (its sigma is 1.5)")

    def build(self) -> nn.Module:
        return Dissimilarity(self.window)

    @property
    def smallest_patch(self) -> int:
        return self.window


class MSSSIMConfig(ImageLossConfig):
    """1 - MS-SSIM: SSIM's terms at five scales, each half the size of the one before."""

    kind: Literal["ms_ssim"] = "ms_ssim"
    window: Window = Field(
        11, description="side in pixels of the Gaussian window; crops need 16 * (window - 1) + 1"
    )

    def build(self) -> nn.Module:
        return MultiScaleDissimilarity(self.window)

    @property
    def smallest_patch(self) -> int:
        return 16 * (self.window - 1) + 1


class GradientConfig(ImageLossConfig):
    """Mean absolute error of the differences between neighbours: edges and texture, not brightness."""

    kind: Literal["gradient"] = "gradient"

    def build(self) -> nn.Module:
        return GradientError()

    @property
    def smallest_patch(self) -> int:
        return 2


class FourierConfig(ImageLossConfig):
    """Mean absolute error of the spectra of whole crops (MIMO-UNet)."""

    kind: Literal["fourier"] = "fourier"

    def build(self) -> nn.Module:
        return SpectralError()


class Charbonnier(nn.Module):
    """mean(sqrt((restored - clean)^2 + epsilon^2)); a scalar (Lai et al., arXiv 1710.01992)."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        return torch.sqrt((restored - clean).square() + self.epsilon**2).mean()


class NegativePSNR(nn.Module):
    """Mean over the batch of 10 log10(MSE of one image), in dB, for images in [0, 1]; a scalar.

    1e-8 inside the logarithm bounds it at -80 dB, so identical images have a finite gradient.
    """

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        squared_error = (restored - clean).square().flatten(1).mean(1)
        return (10 / math.log(10)) * torch.log(squared_error + 1e-8).mean()


class Dissimilarity(nn.Module):
    """1 - SSIM (Wang et al. 2004), mean over windows inside the image, channels and batch; a scalar in [0, 2]."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        # Variances are small differences of large numbers: TF32, cuDNN's default, would leave noise of them.
        with torch.backends.cudnn.flags(enabled=False):
            index: Tensor = pytorch_msssim.ssim(restored, clean, data_range=1.0, win_size=self.window)
        return 1 - index


class MultiScaleDissimilarity(nn.Module):
    """1 - MS-SSIM (Wang et al. 2003, five scales with the published exponents); a scalar in [0, 1].

    An image with a scale of no positive correlation counts 1, without a gradient: alone, this loss
    cannot start from restored images that have nothing in common with the clean ones.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        with torch.backends.cudnn.flags(enabled=False):  # as in Dissimilarity
            index: Tensor = pytorch_msssim.ms_ssim(restored, clean, data_range=1.0, win_size=self.window)
        return 1 - index


class GradientError(nn.Module):
    """Mean absolute error of vertical and of horizontal differences, the two averaged; a scalar."""

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        error = restored - clean
        return (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2


class SpectralError(nn.Module):
    """mean |F(restored) - F(clean)| over the half spectrum that `rfft2` gives; a scalar.

    The frequency loss of MIMO-UNet (arXiv 2108.05054) at one scale, but with an orthonormal F, so that a weight
    means the same for crops of any size. 0.1 without normalisation on 256-pixel crops, as published, is 25.6 here.
    """

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.rfft2(restored - clean, norm="ortho")
        return spectrum.abs().mean()
