"""Running a model on whole images: precision, tiles, memory, devices, and the scores of what comes out.

A network and images of any size come in, restored images and their PSNR, SSIM and MAE go out.
Imports `data` and `models`; knows neither trials nor studies.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
