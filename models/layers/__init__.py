"""Layers and tools that several networks share: norms, padding, recomputation, the U shape, global statistics.

Tensors and settings come in, tensors and modules go out.
Imports nothing of the project but itself and `models.kernel_basis`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
