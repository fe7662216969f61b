"""Clean images, degraded as they are handed out: blur, photon noise, Gaussian noise, JPEG."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from data.cropping import Crop, Vary
from data.files import Pair, Pixels, jpeg_round_trip, to_unit
from data.sources.folders import find_images, find_originals, find_parts
from data.sources.grouping import pair_groups
from data.sources.pairs import channel_count, collate
from data.sources.pixel_cache import load_pixels, pixel_kind, read_headers, white_level
from data.sources.split import PairSet, Split, divided, place_key


def _as_range(value: Any) -> Any:
    """A single number stands for a range of no width."""
    return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Range = Annotated[tuple[float, float], BeforeValidator(_as_range)]
"""Lowest and highest value of a uniform draw, one draw per image; a plain number is a fixed value."""

_HIGHEST = {"sigma": 255.0, "blur": 20.0, "jpeg_quality": 100.0}


class SyntheticConfig(BaseModel):
    """Clean images in DIR or DIR/{train,val} (or in a `clean` folder inside), degraded in this order:
    blur, photon noise, Gaussian noise, clipping, JPEG.

    Training crops get fresh noise at every step, validation images the same one always. With only `sigma`
    set this is the protocol of published denoising tables: float Gaussian noise, never clipped or rounded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["synthetic"] = "synthetic"
    dir: Path = Field(description="folder of the clean images")
    clean_dir: str | None = Field(None, description="name of a folder inside DIR that holds the images")
    sigma: Range = Field(
        (25.0, 25.0),
        description="standard deviation of Gaussian noise, on a scale of 0 to 255; number or range",
    )
    photons: float | None = Field(
        None, gt=0, description="mean photon count of a white pixel (Poisson noise); none: no photon noise"
    )
    blur: Range = Field(
        (0.0, 0.0), description="standard deviation of a Gaussian blur, in pixels; number or range"
    )
    jpeg_quality: Range | None = Field(
        None, description="JPEG quality, 1 to 100, number or range; none: no JPEG"
    )
    clip: bool = Field(
        False,
        description="clip and round the noisy image to 8 bit, as a stored file is (JPEG does anyway)",
    )
    val_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="share of the images held out for validation where DIR has no train/ and val/",
    )
    channels: Literal["auto", 1, 3] = Field(
        "auto", description="1 gray, 3 colour; auto: colour if any image is"
    )

    @field_validator("sigma", "blur", "jpeg_quality")
    @classmethod
    def _bounded(cls, value: tuple[float, float] | None, info: Any) -> tuple[float, float] | None:
        lowest, highest = 1.0 if info.field_name == "jpeg_quality" else 0.0, _HIGHEST[info.field_name]
        if value is not None and not lowest <= value[0] <= value[1] <= highest:
            raise ValueError(
                f"{list(value)} must be low and high with {lowest:g} <= low <= high <= {highest:g}"
            )
        return value

    def open(self, *, seed: int, cache: Path) -> Split:
        """Decodes all images. `seed` only matters where there is no train/ and val/ and no earlier split."""
        files = {
            part: find_images(find_originals(folder, self.clean_dir))
            for part, folder in find_parts(self.dir).items()
        }
        train, val, how = divided(
            files,
            self.val_fraction,
            seed,
            self.dir,
            cache,
            (self.clean_dir,),
            lambda names: pair_groups(names, {name: (files["all"][name],) for name in names}),
        )
        paths = [*train.values(), *val.values()]
        headers = read_headers(paths)
        white = white_level(paths, headers)
        pixels, digest = load_pixels(paths, headers, channel_count(headers, self.channels), cache, white)
        settings = self.model_dump_json(include={"sigma", "photons", "blur", "jpeg_quality", "clip"})
        return Split(
            train=SyntheticPairs(list(train), pixels[: len(train)], self),
            val=SyntheticPairs(list(val), pixels[len(train) :], self),
            channels=pixels[0].shape[0],
            fingerprint=place_key(digest, settings, *train, "", *val),
            note=f"{len(train)} train / {len(val)} val clean images, {pixel_kind(pixels, white)}, degraded by "
            f"{self.summary()}, {how}",
        )

    def summary(self) -> str:
        """The degradation in a few words."""
        words = [
            f"blur {_shown(self.blur)} px" if self.blur[1] else "",
            f"{self.photons:g} photons" if self.photons else "",
            f"noise {_shown(self.sigma)}/255" if self.sigma[1] else "",
            "clipping" if self.clip and not self.jpeg_quality else "",
            f"JPEG {_shown(self.jpeg_quality)}" if self.jpeg_quality else "",
        ]
        return " + ".join(filter(None, words)) or "nothing"

    def degrade(self, clean: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """A degraded copy of a batch (B, C, H, W) in [0, 1]; each image gets its own draw of the settings."""
        count = len(clean)
        sigma, blur = rng.uniform(*self.sigma, count), rng.uniform(*self.blur, count)
        degraded = clean.copy()
        if self.blur[1] > 0:
            degraded = np.stack([_blurred(image, width) for image, width in zip(degraded, blur, strict=True)])
        if self.photons is not None:
            degraded = (rng.poisson(degraded * self.photons) / self.photons).astype(np.float32)
        if self.sigma[1] > 0:
            noise = rng.standard_normal(clean.shape, np.float32)
            noise *= (sigma / 255).astype(np.float32)[:, None, None, None]
            degraded += noise
        if self.clip:
            degraded = _as_8bit(degraded).astype(np.float32) / np.float32(255)
        if self.jpeg_quality is not None:
            qualities = np.rint(rng.uniform(*self.jpeg_quality, count))
            degraded = np.stack([_jpeg(image, int(q)) for image, q in zip(degraded, qualities, strict=True)])
        return degraded


class SyntheticPairs(PairSet):
    """Clean pixels that are degraded when asked for."""

    def __init__(self, names: Sequence[str], clean: Sequence[Pixels], config: SyntheticConfig) -> None:
        self._names, self._clean, self._config = list(names), list(clean), config
        # So much more is cut around a crop, so that its border is blurred as in the whole image.
        self._margin = math.ceil(4 * config.blur[1])

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def size(self, index: int) -> tuple[int, int]:
        _, height, width = self._clean[index].shape
        return height, width

    def whole(self, index: int) -> Pair:
        clean = to_unit(self._clean[index])
        seed = int.from_bytes(hashlib.sha256(self._names[index].encode()).digest()[:8])
        degraded = self._config.degrade(clean.numpy()[None], np.random.default_rng(seed))
        return Pair(torch.from_numpy(degraded[0]), clean)

    def crops(self, crops: Sequence[Crop], patch: int, vary: Vary, key: tuple[int, ...]) -> Pair:
        margin = self._margin
        wider = [_widened(crop, round(margin * crop.side / patch)) for crop in crops]
        clean = to_unit(collate(self._clean, wider, patch + 2 * margin))
        vary(clean.numpy())
        degraded = self._config.degrade(clean.numpy(), np.random.default_rng(key))
        inner = slice(margin, margin + patch)
        return Pair(
            torch.from_numpy(np.ascontiguousarray(degraded[..., inner, inner])),
            clean[..., inner, inner].contiguous(),
        )


def _widened(crop: Crop, margin: int) -> Crop:
    """The crop with so many more pixels on each side."""
    return crop._replace(top=crop.top - margin, left=crop.left - margin, side=crop.side + 2 * margin)


def _shown(value: tuple[float, float]) -> str:
    return f"{value[0]:g}" if value[0] == value[1] else f"{value[0]:g} to {value[1]:g}"


def _blurred(image: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    if width <= 0:
        return image
    return np.stack([cv2.GaussianBlur(plane, (0, 0), width) for plane in image])


def _as_8bit(image: NDArray[np.float32]) -> Pixels:
    return np.asarray(np.rint(image.clip(0, 1) * 255)).astype(np.uint8)


def _jpeg(image: NDArray[np.float32], quality: int) -> NDArray[np.float32]:
    """A (C, H, W) image after one trip through a JPEG file."""
    back = jpeg_round_trip(_as_8bit(image).transpose(1, 2, 0), quality)
    return np.ascontiguousarray(back.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
