"""The U shape of NAFNet and KBNet_s: blocks at every scale, halved on the way down, doubled on the way up."""

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from models.layers.blocks import Residuals, fast_layout, full_precision
from models.layers.padding import crop_like, pad_to_multiple
from models.layers.recompute import Recomputable

Blocks = Annotated[tuple[Annotated[int, Field(ge=1, le=32)], ...], Field(min_length=1, max_length=5)]


class UShapeConfig(BaseModel):
    """Settings of the shape; the defaults are those of the published denoisers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    channels: Literal[1, 3] = Field(3, description="image channels: 1 (gray) or 3 (colour)")
    width: int = Field(32, ge=4, le=256, description="feature channels at full resolution; doubled per level")
    encoder_blocks: Blocks = Field((2, 2, 4, 8), description="blocks per level on the way down, finest first")
    middle_blocks: int = Field(12, ge=1, le=64, description="blocks at the coarsest resolution")
    decoder_blocks: Blocks = Field((2, 2, 2, 2), description="blocks per level on the way up, coarsest first")
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="chance of a block to be left out in a training step (stochastic depth)"
    )
    recompute: bool = Field(
        False, description="keep only each block's input for the gradients: less memory for more time"
    )

    @model_validator(mode="after")
    def _levels_match(self) -> Self:
        levels = len(self.encoder_blocks)
        if len(self.decoder_blocks) != levels:
            raise ValueError(
                f"decoder_blocks has {len(self.decoder_blocks)} levels, encoder_blocks {levels}; "
                "they must be equal"
            )
        return self


class UShape(nn.Module):
    """A network of blocks in that shape; parameter names are the published ones, so checkpoints load both ways.

    `block(channels)` makes one block, which keeps the shape of its input.
    """

    def __init__(self, config: UShapeConfig, block: Callable[[int], Recomputable]) -> None:
        super().__init__()

        def stage(count: int, width: int) -> Residuals:
            blocks = [block(width) for _ in range(count)]
            for each in blocks:
                each.recompute = config.recompute
            return Residuals(*blocks, drop=config.drop_path)

        width = config.width
        self.intro = nn.Conv2d(config.channels, width, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        for count in config.encoder_blocks:
            self.encoders.append(stage(count, width))
            self.downs.append(nn.Conv2d(width, 2 * width, 2, stride=2))
            width *= 2
        self.middle_blks = stage(config.middle_blocks, width)
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        for count in config.decoder_blocks:
            self.ups.append(nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), nn.PixelShuffle(2)))
            width //= 2
            self.decoders.append(stage(count, width))
        self.ending = nn.Conv2d(width, config.channels, 3, padding=1)
        self.size_multiple = 2 ** len(config.encoder_blocks)

    def forward(self, degraded: Tensor) -> Tensor:
        """Restored images (N, C, H, W), float32, for degraded ones in [0, 1]; any H, W >= 1."""
        return crop_like(self.body(pad_to_multiple(degraded, self.size_multiple)), degraded)

    def body(self, degraded: Tensor) -> Tensor:
        """The same for sides that are multiples of `size_multiple`: nothing padded, nothing cropped."""
        x = self.intro(fast_layout(degraded))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = decoder(up(x) + skip)
        # The last step stays in the type of the image: bfloat16 would round it to 61 dB.
        with full_precision(degraded):
            return self.ending(x.to(degraded.dtype)) + degraded  # type: ignore[no-any-return]

    def prunable(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters that pruning may mask: kernels and kernel bases, not the first and last layer, not `sca`."""
        dense = ("intro.", "ending.")
        return [
            (name, parameter)
            for name, parameter in self.named_parameters()
            if name.endswith((".w", ".weight")) and parameter.ndim >= 3
            if not name.startswith(dense) and ".sca." not in name
        ]
