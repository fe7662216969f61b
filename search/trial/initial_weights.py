"""The weights that training starts from: random ones, or those of a file."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from safetensors.torch import load
from torch import Tensor, nn

from data.files import expand_home
from search.trial.losses.base import WITH_FILES


class InitialConfig(BaseModel):
    """Weights from a file, or from the best trial of another study; exactly one of the two is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: Annotated[Path, AfterValidator(expand_home)] | None = Field(
        None, description=".safetensors, or a .pth with a plain state dict"
    )
    study: str | None = Field(None, description="name of a study in the same database")
    match: Literal["strict", "matching", "overlap"] = Field(
        "strict",
        description="all names and shapes must agree, those that agree are taken, or of each weight what fits",
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="of the file, if it must be that one"
    )

    @model_validator(mode="after")
    def _names_one_source(self) -> Self:
        if (self.file is None) == (self.study is None):
            raise ValueError("name either a file or a study")
        return self

    @model_validator(mode="after")
    def _file_can_be_read(self, info: ValidationInfo) -> Self:
        if info.context == WITH_FILES and self.file is not None:
            self.read()
        return self

    def load_into(self, model: nn.Module) -> None:
        """Fill `model`. Raises `ValueError` where nothing fits, or in strict mode not everything."""
        if self.match == "overlap":
            self._load_overlap(model)
        else:
            self._load_equals(model)

    def _load_equals(self, model: nn.Module) -> None:
        found, wanted = self.read(), model.state_dict()
        agreeing = {name: value for name, value in found.items() if _agree(value, wanted.get(name))}
        if not agreeing:
            raise ValueError(f"initial: {self.file} has no weights of the names and shapes of this model")
        if self.match == "strict" and not len(agreeing) == len(found) == len(wanted):
            odd = sorted({*found, *wanted} - {*agreeing})
            raise ValueError(
                f"initial: {self.file} is of another model: {len(odd)} weights differ in name or shape, as {odd[0]}; "
                'match = "matching" takes those that agree'
            )
        model.load_state_dict(agreeing, strict=False)

    @torch.no_grad()
    def _load_overlap(self, model: nn.Module) -> None:
        """The first channels of `model` become those of the file; all else stays as initialised.

        Channels from the file do not hear the others at first, so that they compute what they did there, but for
        norms over all channels: the aim of Net2Net (arXiv 1511.05641), without its copies of channels.
        """
        found, layers = self.read(), dict(model.named_modules())
        shared = [
            (name, value) for name, value in model.state_dict().items() if _overlap(value, found.get(name))
        ]
        if not shared:
            raise ValueError(f"initial: {self.file} has no weights that overlap with those of this model")
        for name, value in shared:
            part = [slice(side) for side in found[name].shape]
            layer = layers.get(name.rpartition(".")[0])
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and value.ndim == 4:
                outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
                value[tuple(side if axis == outputs else slice(None) for axis, side in enumerate(part))] = 0
            ours = value[tuple(part)]
            ours.copy_(found[name][tuple(slice(side) for side in ours.shape)])

    def read(self) -> Mapping[str, Tensor]:
        """The weights in the file, by name. `ValueError` where there are none; nothing is unpickled but tensors."""
        assert self.file is not None, "the study was not resolved to a file"
        try:
            content = self.file.read_bytes()
        except OSError as error:
            raise ValueError(f"{self.file}: cannot be read: {error.strerror}") from None
        if self.sha256 and hashlib.sha256(content).hexdigest() != self.sha256:
            raise ValueError(f"{self.file}: is another file than the one with this sha256")
        try:
            if self.file.suffix == ".safetensors":
                return load(content)
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        # A damaged file makes torch raise nearly anything: UnpicklingError, EOFError, IndexError, ...
        except Exception as error:
            reason = (str(error).splitlines() or ["it is empty"])[0]
            raise ValueError(f"{self.file}: holds no weights: {reason}") from None
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError(f"{self.file}: is no plain state dict of names and tensors")
        return state


def _agree(value: Tensor, wanted: Tensor | None) -> bool:
    return wanted is not None and value.shape == wanted.shape


def _overlap(value: Tensor, other: Tensor | None) -> bool:
    """True if two weights differ in their numbers of channels at most, not in the size of a kernel."""
    if other is None or value.ndim != other.ndim:
        return False
    return value.ndim != 4 or value.shape[2:] == other.shape[2:]
