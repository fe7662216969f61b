"""Kernel basis attention (KBNet, arXiv 2303.02881) as one operator: plain torch, C++ for CPUs, Triton for GPUs.

Image, attention and kernel bases come in, the filtered image goes out, with gradients.
Imports `models.layers`; which form runs is decided in `operator.py`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
