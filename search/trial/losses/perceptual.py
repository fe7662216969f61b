"""Perceptual loss: how far apart two images are in the features of a VGG network."""

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import AfterValidator, Field, ValidationInfo, model_validator
from safetensors.torch import load_file
from torch import Tensor, nn

from data.files import expand_home
from models import count_macs
from search.trial.losses.base import WITH_FILES, ImageLossConfig

Network = Literal["vgg16", "vgg19"]

# Convolutions per block (arXiv 1409.1556, table 1, D and E) and their width; a pooling ends each block.
BLOCKS: Mapping[Network, tuple[int, ...]] = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)
# Trained by torchvision on ImageNet; eight digits of the sha256 are part of the name.
PUBLISHED: Mapping[Network, str] = {"vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth"}
DOWNLOAD = "https://download.pytorch.org/models/"
# What torchvision's training subtracted from RGB in [0, 1], and divided by.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# In units of one forward pass: restored, clean, and back to the restored image past fixed weights.
PASSES = 3


class PerceptualConfig(ImageLossConfig):
    """Distances between the features of a trained VGG network, which you download (Johnson et al.)."""

    kind: Literal["perceptual"] = "perceptual"
    network: Network = "vgg16"
    file: Annotated[Path, AfterValidator(expand_home)] | None = Field(
        None,
        description="weights as torchvision names them, .pth or .safetensors; none: torchvision's file in "
        "$TORCH_HOME/hub/checkpoints (~/.cache/torch)",
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="of the file; none: as far as its name tells"
    )
    layers: dict[str, Annotated[float, Field(gt=0, le=1e5)]] = Field(
        {"relu2_2": 1.0, "relu3_3": 1.0},
        min_length=1,
        description="weights of convB_N or reluB_N: block B, convolution N, before or after its activation",
    )
    distance: Literal["l1", "mse"] = Field("l1", description="mean absolute or squared error of features")

    @model_validator(mode="after")
    def _network_has_the_layers(self) -> Self:
        known = [name for name in layer_names(self.network) if not name.startswith("pool")]
        for name in self.layers:
            if name not in known:
                raise ValueError(f"layers: {name!r} is not in {self.network} (known: {', '.join(known)})")
        return self

    @model_validator(mode="after")
    def _weights_are_there(self, info: ValidationInfo) -> Self:
        if info.context == WITH_FILES:
            self._stack()
        return self

    def build(self) -> nn.Module:
        layers = {self._index(name): weight for name, weight in self.layers.items()}
        return Perceptual(self._stack(), layers, nn.L1Loss() if self.distance == "l1" else nn.MSELoss())

    def macs(self, channels: Literal[1, 3], patch: int) -> int:
        return PASSES * count_macs(untrained_stack(self.network, self._depth), 3, patch, patch)

    @property
    def smallest_patch(self) -> int:
        poolings = [name for name in layer_names(self.network)[: self._depth] if name.startswith("pool")]
        return 1 << len(poolings)

    @property
    def _depth(self) -> int:
        """The number of layers that are needed."""
        return 1 + max(map(self._index, self.layers))

    def _index(self, name: str) -> int:
        return layer_names(self.network).index(name)

    def _stack(self) -> nn.Sequential:
        published = Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED[self.network]
        file = published if self.file is None else self.file.expanduser()
        if not file.is_file():
            raise ValueError(
                f"{file}: no such file; download {DOWNLOAD}{published.name} to {published}, "
                f"or set file to where weights of {self.network} are"
            )
        return trained_stack(self.network, self._depth, file, self.sha256)


class Perceptual(nn.Module):
    """Sum over layers of weight * mean distance of features; a scalar (Johnson et al., arXiv 1603.08155).

    Images are RGB in [0, 1]; gray ones are repeated. What leaves that range is not clipped.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, stack: nn.Sequential, layers: Mapping[int, float], distance: nn.Module) -> None:
        super().__init__()
        self.stack, self.layers, self.distance = stack, layers, distance
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        with torch.no_grad():
            targets = self.features(clean)
        terms = [
            weight * self.distance(found, target)
            for weight, found, target in zip(
                self.layers.values(), self.features(restored), targets, strict=True
            )
        ]
        return torch.stack(terms).sum()

    def features(self, image: Tensor) -> list[Tensor]:
        """Features of the chosen layers for images (N, 1 or 3, H, W)."""
        seen = {}
        x = (image.expand(-1, 3, -1, -1) - self.mean) / self.std
        for index, layer in enumerate(self.stack):
            x = layer(x)
            seen[index] = x
        return [seen[index] for index in self.layers]


def layer_names(network: Network) -> list[str]:
    """conv1_1, relu1_1, conv1_2, relu1_2, pool1, conv2_1, ...: the place of a name is torchvision's number."""
    names = []
    for block, convolutions in enumerate(BLOCKS[network], 1):
        for number in range(1, convolutions + 1):
            names += [f"conv{block}_{number}", f"relu{block}_{number}"]
        names.append(f"pool{block}")
    return names


def untrained_stack(network: Network, depth: int) -> nn.Sequential:
    """The first `depth` layers of the network, without weights (on the meta device)."""
    stack: list[nn.Module] = []
    channels = 3
    for name in layer_names(network)[:depth]:
        if name.startswith("conv"):
            width = WIDTHS[int(name[4]) - 1]
            stack.append(nn.Conv2d(channels, width, 3, padding=1, device="meta"))
            channels = width
        else:
            stack.append(nn.ReLU() if name.startswith("relu") else nn.MaxPool2d(2))
    return nn.Sequential(*stack)


def trained_stack(network: Network, depth: int, file: Path, sha256: str | None) -> nn.Sequential:
    """The first `depth` layers with the weights of a file, as buffers: they neither learn nor enter a state dict.

    Raises `ValueError` for a file that cannot be read, does not have the expected sha256 or does
    not fit. A file is read once per process, unless it changes.
    """
    stat = file.stat()
    weights = _read(network, depth, file, sha256, (stat.st_size, stat.st_mtime_ns))
    stack = untrained_stack(network, depth)
    for name, tensor in weights.items():
        layer, kind = stack[int(name.partition(".")[0])], name.partition(".")[2]
        delattr(layer, kind)
        layer.register_buffer(kind, tensor, persistent=False)
    return stack


@lru_cache(maxsize=4)
def _read(
    network: Network, depth: int, file: Path, sha256: str | None, stamp: tuple[int, int]
) -> Mapping[str, Tensor]:
    """Weights by their names in `untrained_stack`. `stamp` makes a file that changed another one."""
    _check_hash(file, sha256)
    try:
        tensors = (
            load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        )
    # A damaged file makes torch raise nearly anything: UnpicklingError, EOFError, struct.error, ...
    except Exception as error:
        raise ValueError(f"{file}: not readable as weights: {str(error).partition('.')[0]}") from None
    weights = {}
    for name, wanted in untrained_stack(network, depth).state_dict().items():
        found = tensors.get(f"features.{name}") if isinstance(tensors, dict) else None
        if not isinstance(found, Tensor) or found.shape != wanted.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else "missing"
            raise ValueError(
                f"{file}: not the weights of {network}: features.{name} is {shape}, "
                f"expected {tuple(wanted.shape)}"
            )
        # A copy, because the file may be mapped into memory, classifier and all.
        weights[name] = found.detach().to(torch.float32, copy=True)
    return weights


def _check_hash(file: Path, sha256: str | None) -> None:
    """`ValueError` unless the file has that sha256 or, if None, one that starts with the digits in its name."""
    named = re.fullmatch(r".*-([0-9a-f]{8})\.pth", file.name)
    expected = sha256 or (named[1] if named else "")
    if not expected:
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if not found.startswith(expected):
        raise ValueError(
            f"{file}: damaged or another file: its sha256 is {found}, expected {expected}"
            + ("" if sha256 else "..., as in its name")
        )
