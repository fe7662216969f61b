"""Losses: what a training step minimises, from restored images and their pairs.

In come restored images and the pair they belong to, out goes a scalar in float32. An image loss (`ImageLossConfig` in
base.py) compares two images and learns nothing; an objective may train a network of its own (adversarial.py).
A new image loss is a file here, or a class in pixel.py, and a line in `SingleLossConfig` (image_losses.py).
"""

from typing import Annotated

from pydantic import Field

from search.trial.losses.adversarial import AdversarialConfig
from search.trial.losses.image_losses import LossConfig

ObjectiveConfig = Annotated[LossConfig | AdversarialConfig, Field(discriminator="kind")]
