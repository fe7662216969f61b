"""Classical filters and their settings: image in, image out, nothing to train.

An image here is an array (H, W, C), float32 in [0, 1], C = 1 or 3 (RGB), of any height and width >= 1.
Amounts of noise and differences of intensity are in 8-bit codes, 0 to 255. Where a filter exists for
8-bit images only, the image is rounded to codes first, and its docstring says so.
"""

from typing import Annotated, Any, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from skimage.restoration import denoise_tv_chambolle, denoise_wavelet

Image = NDArray[np.float32]
Codes = NDArray[np.uint8]

WAVELET_MIN_SIDE = 32  # one level of the longest wavelet below has no more room on a smaller image


def _odd(side: int) -> int:
    if side % 2 == 0:
        raise ValueError(f"a window has a middle pixel, so its side is odd: {side - 1} or {side + 1}")
    return side


Side = Annotated[int, Field(ge=1, le=255), AfterValidator(_odd)]


class Unchanged(BaseModel):
    """The image as it is: what every filter and network has to beat."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["unchanged"] = "unchanged"

    def apply(self, image: Image) -> Image:
        return image


class NonLocalMeans(BaseModel):
    """Each pixel is a mean over pixels whose neighbourhoods look alike (Buades et al., CVPR 2005).

    OpenCV's, on 8-bit codes; colour images in CIELAB, lightness and colour apart, whose rounding alone
    turns white into 254.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["non_local_means"] = "non_local_means"
    strength: float = Field(3.0, gt=0, le=100, description="OpenCV's h, in codes: more is smoother")
    colour_ratio: float = Field(
        1.0, gt=0, le=10, description="strength for the colour planes, in units of `strength`"
    )
    template: Side = Field(7, description="side of the neighbourhoods that are compared, odd")
    window: Side = Field(21, description="side of the window in which alike ones are looked for, odd")

    def apply(self, image: Image) -> Image:
        codes, strength = to_codes(image), self.strength
        if image.shape[2] == 1:
            return to_unit(cv2.fastNlMeansDenoising(codes, None, strength, self.template, self.window))
        colour_strength = strength * self.colour_ratio
        bgr = cv2.cvtColor(codes, cv2.COLOR_RGB2BGR)
        restored = cv2.fastNlMeansDenoisingColored(
            bgr, None, strength, colour_strength, self.template, self.window
        )
        return to_unit(cv2.cvtColor(restored, cv2.COLOR_BGR2RGB))


class Bilateral(BaseModel):
    """A Gaussian mean over near pixels of near intensity or colour (Tomasi and Manduchi, ICCV 1998)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["bilateral"] = "bilateral"
    diameter: Side = Field(9, description="side of the window in pixels, odd")
    distance: float = Field(2.0, gt=0, le=100, description="standard deviation over places, in pixels")
    difference: float = Field(
        20.0, gt=0, le=1000, description="standard deviation over intensities, in codes"
    )

    def apply(self, image: Image) -> Image:
        return as_planes(cv2.bilateralFilter(image, self.diameter, self.difference / 255, self.distance))


class Median(BaseModel):
    """The middle value of a square window, plane by plane, on 8-bit codes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["median"] = "median"
    side: Side = Field(3, description="side of the window in pixels, odd")

    def apply(self, image: Image) -> Image:
        return to_unit(cv2.medianBlur(to_codes(image), self.side))


class Gaussian(BaseModel):
    """A Gaussian blur."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["gaussian"] = "gaussian"
    sigma: float = Field(0.6, gt=0, le=100, description="standard deviation in pixels")

    def apply(self, image: Image) -> Image:
        return as_planes(cv2.GaussianBlur(image, (0, 0), self.sigma))


class Guided(BaseModel):
    """Each plane as a line of itself, fitted in every window (He et al., ECCV 2010, equations 5, 6 and 8).

    The guide is the plane itself. Written out because only opencv-contrib has it. Windows that reach
    over the border see the image mirrored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["guided"] = "guided"
    radius: int = Field(2, ge=1, le=127, description="pixels from the middle of a window to its sides")
    edge: float = Field(
        8.0, ge=0.5, le=1000, description="standard deviation in a window that counts as an edge, in codes"
    )

    def apply(self, image: Image) -> Image:
        mean = self._mean(image)
        variance = self._mean(image * image) - mean * mean
        slope = variance / (variance + (self.edge / 255) ** 2)
        offset = mean - slope * mean
        return self._mean(slope) * image + self._mean(offset)

    def _mean(self, image: NDArray[Any]) -> Image:
        side = 2 * self.radius + 1
        return as_planes(cv2.boxFilter(image, -1, (side, side)))


class Wavelet(BaseModel):
    """Shrinks wavelet coefficients that noise of a known amount explains; colour images in YCbCr.

    scikit-image's: `bayes` has a threshold for every band (Chang et al., IEEE TIP 2000), `visu` one for
    all (Donoho and Johnstone, Biometrika 1994), which blurs more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["wavelet"] = "wavelet"
    noise: float = Field(4.0, gt=0, le=255, description="standard deviation of the noise, in codes")
    wavelet: Literal["haar", "db2", "sym4"] = Field("sym4", description="haar is the sharpest, sym4 smooth")
    threshold: Literal["bayes", "visu"] = Field("bayes", description="how the threshold follows the noise")

    def apply(self, image: Image) -> Image:
        height, width, channels = image.shape
        missing = ((0, max(WAVELET_MIN_SIDE - height, 0)), (0, max(WAVELET_MIN_SIDE - width, 0)), (0, 0))
        restored = denoise_wavelet(
            np.pad(image, missing, mode="edge"),
            sigma=self.noise / 255,
            wavelet=self.wavelet,
            method={"bayes": "BayesShrink", "visu": "VisuShrink"}[self.threshold],
            convert2ycbcr=channels == 3,
            channel_axis=-1,
            rescale_sigma=True,
        )
        return np.asarray(restored[:height, :width], np.float32)


class TotalVariation(BaseModel):
    """The nearest image of less total variation, plane by plane (Rudin et al. 1992, Chambolle 2004).

    scikit-image's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["total_variation"] = "total_variation"
    weight: float = Field(
        4.0, gt=0, le=1000, description="how much a change of intensity counts, in codes: more is smoother"
    )

    def apply(self, image: Image) -> Image:
        return np.asarray(denoise_tv_chambolle(image, weight=self.weight / 255, channel_axis=-1), np.float32)


class BackgroundDivision(BaseModel):
    """A page divided by its paper, so that stains and shadows vanish; then black and white are set.

    The paper is what is left when a dilation has removed the ink and a median what the dilation
    left over; both work on 8-bit codes, plane by plane.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["background_division"] = "background_division"
    dilation: Side = Field(5, description="side of the dilation in pixels, wider than a stroke, odd")
    median: Side = Field(21, description="side of the median in pixels, odd")
    black: float = Field(0.0, ge=0, lt=1, description="share of the paper's intensity that becomes black")
    white: float = Field(1.0, gt=0, le=1, description="share of the paper's intensity that becomes white")

    @model_validator(mode="after")
    def _black_is_darker_than_white(self) -> Self:
        if self.black >= self.white:
            raise ValueError(f"black ({self.black}) must be below white ({self.white})")
        return self

    def apply(self, image: Image) -> Image:
        square = np.ones((self.dilation, self.dilation), np.uint8)
        paper = as_planes(cv2.medianBlur(cv2.dilate(to_codes(image), square), self.median))
        # Where the paper is black there is nothing to divide by: one code is the least that is not.
        share = image / to_unit(np.maximum(paper, 1))
        return np.asarray(np.clip((share - self.black) / (self.white - self.black), 0, 1), np.float32)


FilterConfig = Annotated[
    Unchanged
    | NonLocalMeans
    | Bilateral
    | Median
    | Gaussian
    | Guided
    | Wavelet
    | TotalVariation
    | BackgroundDivision,
    Field(discriminator="kind"),
]


def to_codes(image: Image) -> Codes:
    """The nearest 8-bit codes."""
    codes: Codes = (image.clip(0, 1) * 255).round().astype(np.uint8)
    return codes


def to_unit(codes: NDArray[Any]) -> Image:
    """8-bit codes, (H, W) or (H, W, C), as an image."""
    return np.asarray(as_planes(codes) / np.float32(255), np.float32)


def as_planes(pixels: NDArray[Any]) -> NDArray[Any]:
    """(H, W, C) also where OpenCV has dropped the axis of a single plane."""
    return pixels.reshape(*pixels.shape[:2], -1)
