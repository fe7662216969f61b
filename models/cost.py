"""Costs of a model: parameters and multiplications."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """All trainable numbers of `model`."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, channels: int, height: int, width: int, inputs: int = 1) -> int:
    """Multiply-accumulates of matrix products and convolutions for one image (or `inputs` images) of that size.

    Includes the products of kernel basis attention, as its definition needs them, whichever way
    they are computed; published tables of KBNet leave them out. Nothing is computed. A model without
    parameters has no such products: 0.
    """
    if count_parameters(model) == 0:
        return 0
    meta_model = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        meta_model(*(torch.empty(1, channels, height, width, device="meta") for _ in range(inputs)))
    return int(counter.get_total_flops()) // 2
