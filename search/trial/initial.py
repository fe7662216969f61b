"""The weights that training starts from: random ones, or those of a file."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from safetensors.torch import load
from torch import Tensor, nn

from search.trial.objective import WITH_FILES


class InitialConfig(BaseModel):
    """Weights from a file, or from the best trial of another study; exactly one of the two is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: Path | None = Field(None, description=".safetensors, or a .pth with a plain state dict")
    study: str | None = Field(None, description="name of a study in the same database")
    match: Literal["strict", "matching"] = Field(
        "strict", description="all names and shapes must agree, or those that agree are taken"
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
        """Fill `model`. Raises `ValueError` where nothing, or in strict mode not everything, agrees."""
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
