"""Where half precision is used, and the one optimizer step in which its order of work matters."""

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from search.device import half_precision
from search.trial.sparsity import Mask

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast for forward passes, and a gradient step that scales losses where fp16 needs it.

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

    def step(self, model: nn.Module, optimizer: torch.optim.Optimizer, mask: Mask, max_norm: float) -> None:
        """Unscale, mask, clip, step and mask again, in this order.

        Clipping comes after unscaling because `max_norm` is meant in units of the true gradient, and
        after masking because weights held at zero must not use up the norm. The weights are masked
        again also when an fp16 overflow made the scaler skip the step.
        """
        self.scaler.unscale_(optimizer)
        mask.zero_gradients()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm, foreach=True)
        self.scaler.step(optimizer)
        self.scaler.update()
        mask.zero_weights()
