"""Half precision: where it is used, and how losses are scaled for it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from torch import Tensor

from search.inference.device import float32_products, half_precision

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast for forward passes, and backward passes that scale losses where fp16 needs it.

    Weights, optimizer state, losses, metrics and the model's last residual add stay in float32
    whatever the name says. "auto" is bf16 where the device has matrix units for it, else fp32.
    With `tf32` a GPU may multiply what is left of float32 in TF32: for training, where speed counts;
    scores and restored images in "fp32" are to be float32.
    """

    def __init__(self, name: PrecisionName, device: torch.device, *, tf32: bool = False) -> None:
        self.device, self.tf32 = device, tf32
        self.name = half_precision(device) or "fp32" if name == "auto" else name
        self.dtype = _DTYPES[self.name]
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.name == "fp16")

    def float32(self) -> AbstractContextManager[None]:
        """The context in which losses are computed; part of `forward` and `backward`."""
        return float32_products(self.device, tf32=self.tf32)

    @contextmanager
    def forward(self) -> Iterator[None]:
        """The context in which a model's forward pass runs."""
        half = self.name != "fp32"
        with self.float32(), torch.autocast(self.device.type, dtype=self.dtype, enabled=half):
            yield

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss` to those that are there."""
        with self.float32():
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
