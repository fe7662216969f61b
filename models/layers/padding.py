"""Any image size for networks that halve the resolution: pad before, crop after."""

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """`images` with zeros added on the right and at the bottom until both sides divide by `multiple`.

    (N, C, H, W) of any H, W >= 1. The published KBNet pads this way, so its checkpoints expect it.
    """
    height, width = images.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(images, (0, right, 0, bottom)) if bottom or right else images


def crop_like(images: Tensor, original: Tensor) -> Tensor:
    """The part of `images` that covers `original`, which `pad_to_multiple` had extended."""
    return images[..., : original.shape[-2], : original.shape[-1]]
