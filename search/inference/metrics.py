"""Quality of a restored image against the clean one, on 8-bit RGB as it would be saved."""

import math

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

# What identical images score: finite, and above anything that 8-bit images can reach otherwise
# (one wrong code by 1 in 400 megapixels is 134 dB).
IDENTICAL_PSNR_DB = 140.0


def to_codes(image: Tensor) -> NDArray[np.uint8]:
    """(C, H, W) float in [0, 1] to (H, W, C) 8-bit codes, clipped and rounded."""
    codes: NDArray[np.uint8] = (
        image.detach().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
    )
    return codes


def psnr_db(restored: NDArray[np.uint8], clean: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB: peak 255, mean squared error over all pixels and channels."""
    error = restored.astype(np.int32) - clean
    mean_squared_error = float(np.mean(error * error, dtype=np.float64))
    if mean_squared_error == 0:
        return IDENTICAL_PSNR_DB
    return 10 * math.log10(255**2 / mean_squared_error)


def ssim(restored: NDArray[np.uint8], clean: NDArray[np.uint8]) -> float:
    """Structural similarity in [-1, 1], with the 11-pixel Gaussian window of Wang et al. 2004, mean over channels.

    Images with a side below 11 pixels are compared through the largest odd window that fits, one
    below 3 pixels by equality alone.
    """
    window = min(11, *(side - 1 + side % 2 for side in clean.shape[:2]))
    if window < 3:
        return float(np.array_equal(restored, clean))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False} if window == 11 else {}
    return float(
        structural_similarity(restored, clean, win_size=window, data_range=255, channel_axis=2, **options)
    )


def mae(restored: NDArray[np.uint8], clean: NDArray[np.uint8]) -> float:
    """Mean absolute error in units of the full range, 0 to 1."""
    return float(np.mean(np.abs(restored.astype(np.int32) - clean), dtype=np.float64) / 255)
