"""Conditional adversarial training (pix2pix, arXiv 1611.07004), for any restoration model."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from data.files import Pair
from models import PatchCriticConfig, count_macs, smallest_patch
from search.inference import Precision
from search.trial.losses.base import Objective
from search.trial.losses.image_losses import LossConfig
from search.trial.losses.pixel import L1Config
from search.trial.optimizers import masked_step, set_learning_rate
from search.trial.schedules import ConstantCooldownConfig, ScheduleConfig
from search.trial.sparsity import Mask

# In units of one forward pass of the critic. Its own step sees clean and restored images, forward and
# backward; the model's step goes forward and back to the image, past the critic's weights.
CRITIC_COST = 2 * 3 + 2


class AdversarialConfig(BaseModel):
    """A critic learns to distinguish restored from clean patches; the model learns to make them look alike."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["adversarial"] = "adversarial"
    objective: Literal["bce", "least_squares"] = Field(
        "bce", description="binary cross-entropy (pix2pix), or squared error to 1 and 0 (LSGAN)"
    )
    pixel: LossConfig = Field(L1Config(), description="the loss between images that is added")
    pixel_weight: float = Field(100.0, ge=0, le=1e5, description="its weight; the adversarial term has 1")
    critic: PatchCriticConfig = PatchCriticConfig()
    lr: float = Field(2e-4, gt=0, le=1, description="peak learning rate of the critic (Adam)")
    beta1: float = Field(0.5, ge=0, lt=1, description="memory of the critic's mean gradient")
    schedule: ScheduleConfig = Field(ConstantCooldownConfig(), description="of the critic's learning rate")

    def objective_for(self, channels: Literal[1, 3], precision: Precision) -> "Adversarial":
        return Adversarial(self, channels, precision)

    def macs(self, channels: Literal[1, 3], patch: int) -> int:
        """Multiply-adds that critic and pixel loss add to a training step, per crop."""
        critic = count_macs(self.critic.build(channels), channels, patch, patch, inputs=2)
        return CRITIC_COST * critic + self.pixel.macs(channels, patch)

    @property
    def smallest_patch(self) -> int:
        """The smallest side in pixels of crops that critic and pixel loss can be computed on."""
        return max(smallest_patch(self.critic.layers), self.pixel.smallest_patch)


class Adversarial(Objective):
    """-log D(x, G(x)) + pixel_weight * L(G(x), y): equation 4 of the paper in its non-saturating form.

    The critic D has its own Adam, schedule and loss scaler, and minimises half the sum of its two
    terms as published. It steps together with the model and not before it, so that the gradients of
    micro-batches add up for both.
    """

    def __init__(self, config: AdversarialConfig, channels: Literal[1, 3], precision: Precision) -> None:
        super().__init__()
        self.config = config
        self.pixel = config.pixel.build().to(precision.device)
        self.critic = config.critic.build(channels).to(precision.device)
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr=config.lr, betas=(config.beta1, 0.999))
        # Scales grow and shrink with the overflows of one network: the critic has a scaler of its own.
        self.precision = Precision(precision.name, precision.device, tf32=precision.tf32)

    def forward(self, restored: Tensor, pair: Pair) -> Tensor:
        self.critic.requires_grad_(False)
        opinion = self._critic_output(pair.degraded, restored)
        loss: Tensor = self._error(opinion, 1.0) + self.config.pixel_weight * self.pixel(restored, pair.clean)
        return loss

    def learn(self, restored: Tensor, pair: Pair, share: float) -> None:
        self.critic.requires_grad_(True)
        real = self._error(self._critic_output(pair.degraded, pair.clean), 1.0)
        fake = self._error(self._critic_output(pair.degraded, restored), 0.0)
        self.precision.backward(share * (real + fake) / 2)

    def step(self, step: float, steps: int, lr_scale: float) -> None:
        lr = self.config.lr * self.config.schedule.factor(step, steps)
        set_learning_rate(self.optimizer, lr_scale * lr)
        masked_step(self.critic, self.optimizer, self.precision, Mask({}), max_norm=float("inf"))

    def _critic_output(self, degraded: Tensor, image: Tensor) -> Tensor:
        with self.precision.forward():
            opinion: Tensor = self.critic(degraded, image)
        return opinion.float()

    def _error(self, opinion: Tensor, target: float) -> Tensor:
        distance = (
            F.mse_loss if self.config.objective == "least_squares" else F.binary_cross_entropy_with_logits
        )
        return distance(opinion, torch.full_like(opinion, target))

    def get_extra_state(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.precision.scaler.state_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.scaler.load_state_dict(state["scaler"])
