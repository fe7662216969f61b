"""Trials as files that other programs load: weights, ONNX, a PyTorch program, Core ML, and a model card.

A trial comes in, a checked folder goes out; `load_model` reads such a folder again.
Imports `worker`, `database`, `inference` and what lies below.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
