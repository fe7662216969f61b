"""Recovery of a trial from running out of memory and from one divergence, with changed settings."""

from dataclasses import dataclass, field


class Diverged(Exception):
    """The loss or the restored images are not finite, or far from any image."""


@dataclass
class Rescue:
    """Changes to a trial's training after failures; saved with its state."""

    parts: int = 1
    """Each batch goes through the model in so many micro-batches; gradients add up to those of the batch."""
    lr_scale: float = 1.0
    full_precision: bool = False
    notes: list[str] = field(default_factory=list)

    def halve_micro_batch(self, step: int, batch: int, normalised: bool) -> None:
        """Half the memory per micro-batch, the same gradient."""
        self.parts = min(2 * self.parts, batch)
        note = f"out of memory at step {step}: batches of {batch} in {self.parts} parts from here"
        if normalised:
            note += ", so batch norm sees smaller batches"
        self.notes.append(note)

    def go_back(self, problem: str, step: int) -> None:
        """A second attempt from `step`, slower and in float32."""
        self.lr_scale /= 2
        self.full_precision = True
        self.notes.append(f"{problem}: back to step {step}, in float32 with half the learning rate")
