"""The best-tuned classical filters on the validation pairs of a folder: what a network has to beat.

    python -m tests.benchmarks.filters --data DIR [--model runs/kbnet/export]

Settings are tuned on the validation pairs themselves, which favours the filters. Non-local means is
OpenCV's (colour form for colour images), swept over strength and window sizes. For pages:
gray dilation, a median of the result as background, division by it.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
from numpy.typing import NDArray

from data import PairsConfig
from search.export import CPU, load_model
from search.trial.evaluate import evaluate
from search.trial.metrics import psnr_db, to_codes
from search.trial.precision import Precision

Image = NDArray[np.uint8]
Filter = Callable[[Image], Image]


def non_local_means(strength: float, colour_strength: float, template: int, window: int) -> Filter:
    def restore(image: Image) -> Image:
        if image.shape[2] == 1:
            return cv2.fastNlMeansDenoising(image, None, strength, template, window)[..., None]  # type: ignore[return-value]
        return cv2.fastNlMeansDenoisingColored(image, None, strength, colour_strength, template, window)  # type: ignore[return-value]

    return restore


def background_division(side: int, median: int) -> Filter:
    def restore(image: Image) -> Image:
        pages = []
        for plane in cv2.split(image):
            background = cv2.medianBlur(cv2.dilate(plane, np.ones((side, side), np.uint8)), median)
            pages.append(cv2.divide(plane, background, scale=255))
        return np.stack(pages, axis=2).astype(np.uint8)

    return restore


def candidates() -> Iterator[tuple[str, Filter]]:
    yield "unchanged", lambda image: image
    for strength, ratio, (template, window) in itertools.product(
        (1.0, 2.0, 3.0, 4.0, 5.0), (1.0, 2.0, 3.0), ((3, 15), (3, 21), (7, 21))
    ):
        name = (
            f"non-local means h={strength:g} hColor={strength * ratio:g} template={template} window={window}"
        )
        yield name, non_local_means(strength, strength * ratio, template, window)
    for side, median in itertools.product((3, 5, 7, 9), (11, 15, 21, 31)):
        yield f"background division dilate={side} median={median}", background_division(side, median)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of pairs")
    parser.add_argument("--every", type=int, default=1, help="take every N-th validation pair")
    parser.add_argument("--model", type=Path, help="an exported model to score on the same pairs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        split = PairsConfig(dir=options.data).open(seed=0, cache=Path(cache))
    pairs = [split.val.whole(index) for index in range(0, len(split.val), options.every)]
    codes = [(to_codes(pair.degraded), to_codes(pair.clean)) for pair in pairs]
    best: dict[str, tuple[float, str]] = {}
    for name, restore in candidates():
        score = fmean(psnr_db(restore(np.ascontiguousarray(degraded)), clean) for degraded, clean in codes)
        kind = name.split("=")[0].rsplit(" ", 1)[0] if "=" in name else name
        best[kind] = max(best.get(kind, (0.0, "")), (score, name))
    if options.model:
        model = load_model(options.model)
        scores = evaluate(model, pairs, Precision("fp32", CPU))
        best["model"] = (fmean(score.psnr_db for score in scores), f"**exported model {options.model}**")
    print(f"{len(pairs)} validation pairs of {options.data.name}")
    print("| filter with its best settings | PSNR (dB) |\n| --- | --- |")
    for score, name in sorted(best.values(), reverse=True):
        print(f"| {name} | {score:.2f} |")


if __name__ == "__main__":
    main()
