"""Half precision: where it is used, and how losses are scaled for it."""

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor

from search.device import half_precision

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast for forward passes, and backward passes that scale losses where fp16 needs it.

    Weights, optimizer state, losses, metrics and the model's last residual add stay in float32
    whatever the name says. "auto" is bf16 where the device has matrix units for it, else fp32.
    """

    def __init__(self, name: PrecisionName, device: torch.device) -> None:
        self.device = device
        self.name = half_precision(device) or "fp32" if name == "auto" else name
        self.dtype = _DTYPES[self.name]
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.name == "fp16")
        if device.type == "cuda":
            # What float32 is left may use TF32 (10-bit mantissas, like fp16's); crops keep their size, so that
            # timing the convolution algorithms once pays.
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True

    def forward(self) -> AbstractContextManager[Any]:
        """The context in which a model's forward pass runs."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.name != "fp32")

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss` to those that are there."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
