"""The command `evaluate`: scores of an exported model for each pair of images, and their means."""

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from data import image_groups
from data.files import DataError, Pixels, decode_image, stretched, to_tensor, with_channels
from data.sources import Pairing, find_pairs
from search.errors import UserError
from search.export import load_exported
from search.inference import ImageScore, score_image, to_codes
from search.restore.restorer import Restorer, RestorerOptions, white_of_file
from search.statistics import CONFIDENCE, ENOUGH_GROUPS, Estimate, bootstrap_mean
from search.terminal import Terminal
from search.worker import CROP_SIDE, Crops, write_crop_rows

SCORES, WORST = "scores.csv", "worst.png"
SHOWN = 5


@dataclass(frozen=True)
class EvaluateOptions:
    """Settings of `evaluate`: the model, the pairs, the output folder."""

    model: Path
    data: Path
    to: Path
    how: RestorerOptions
    scan_dir: str | None = None
    clean_dir: str | None = None
    pair_by: str | None = None
    groups: str | None = None
    quiet: bool = False


@dataclass(frozen=True)
class Result:
    """One image, restored and as it was."""

    name: str
    group: str
    restored: ImageScore
    unchanged: ImageScore
    crops: Crops
    """Crops around the largest squared error of the restored image."""


@dataclass(frozen=True)
class Measure:
    """A column of the report: how it is read from a score, how it is written, and whether more is better."""

    name: str
    key: str
    digits: int
    more_is_better: bool

    def value(self, score: ImageScore) -> float:
        match self.key:
            case "psnr_db":
                return score.psnr_db
            case "ssim":
                return score.ssim
            case "mae_255":
                return 255 * score.mae
            case _:
                # Mean squared error = 255^2 / 10^(PSNR / 10).
                return float(255 * 10 ** (-score.psnr_db / 20))


MEASURES = (
    Measure("PSNR (dB)", "psnr_db", 2, True),
    Measure("SSIM", "ssim", 4, True),
    Measure("MAE", "mae_255", 2, False),
    Measure("RMSE", "rmse_255", 2, False),
)


def evaluate_model(options: EvaluateOptions) -> list[Result]:
    """Score the model on all pairs of a folder, write scores.csv and worst.png, and print the means.

    Images are restored as `restore` does it and compared as 8-bit RGB (gray for gray models and images).
    Raises `UserError` or `DataError` for whatever cannot be read.
    """
    console = Terminal(quiet=options.quiet, highlight=False)
    part, found = _files(options)
    files = found.pairs
    names = list(files)
    group_of = image_groups(options.groups, names)
    restorer = Restorer(load_exported(options.model), options.how)
    try:
        options.to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{options.to}: cannot be made: {error.strerror}; -o names a folder") from None
    steps = track(
        zip(names, group_of, strict=True),
        "restoring",
        len(names),
        console=console,
        transient=True,
        disable=options.quiet or not console.is_terminal,
    )
    results = [_result(name, group, files[name], restorer) for name, group in steps]
    _write(options.to / SCORES, results)
    worst = sorted(results, key=lambda result: result.restored.psnr_db)[:SHOWN]
    write_crop_rows(options.to / WORST, [result.crops for result in worst])
    _show(console, results, f"{len(results)} pairs of {part}")
    for remark in found.remarks:
        console.print(remark, markup=False, emoji=False, soft_wrap=True)
    if restorer.note:
        console.print(restorer.note, markup=False, soft_wrap=True)
    named = ", ".join(f"{result.name} ({result.restored.psnr_db:.2f} dB)" for result in worst)
    console.print(f"lowest PSNR: {named}", markup=False, emoji=False, soft_wrap=True)
    console.print(f"written: {options.to}/{SCORES}, {WORST}", markup=False, emoji=False, soft_wrap=True)
    return results


def _files(options: EvaluateOptions) -> tuple[Path, Pairing]:
    """The folder of the pairs, and the pairs: those for validation where there are such."""
    parts = find_pairs(options.data, options.scan_dir, options.clean_dir, options.pair_by)
    found = parts.get("val") or parts["all"]
    found.refuse_faults()
    return found.place, found


def _result(name: str, group: str, files: tuple[Path, Path], restorer: Restorer) -> Result:
    degraded, clean = (decode_image(path) for path in files)
    if degraded.shape[:2] != clean.shape[:2]:
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (degraded, clean)]
        raise DataError(f"{files[0]} is {sizes[0]}, its clean image is {sizes[1]}; both must have one size")
    white = max(white_of_file(image, restorer.white_level) for image in (degraded, clean))
    degraded, clean = stretched(degraded, white), stretched(clean, white)
    channels = max(restorer.channels, degraded.shape[2], clean.shape[2])
    degraded, clean = with_channels(degraded, channels), with_channels(clean, channels)
    restored, _ = restorer.restore(degraded)
    before, after, goal = (to_tensor(image) for image in (degraded, restored, clean))
    return Result(
        name=name,
        group=group,
        restored=score_image(after, goal),
        unchanged=score_image(before, goal),
        crops=_worst_crops(to_codes(before), to_codes(after), to_codes(goal)),
    )


def _worst_crops(degraded: Pixels, restored: Pixels, clean: Pixels) -> Crops:
    """The crop with the largest squared error."""
    side = min(CROP_SIDE, *clean.shape[:2])
    error = np.square(restored.astype(np.float32) - clean).mean(2)
    corner = cv2.boxFilter(error, -1, (side, side), anchor=(0, 0))
    corner = corner[: clean.shape[0] - side + 1, : clean.shape[1] - side + 1]
    top, left = (int(place) for place in np.unravel_index(int(corner.argmax()), corner.shape))
    rows, columns = slice(top, top + CROP_SIDE), slice(left, left + CROP_SIDE)
    return Crops(*(image[rows, columns].copy() for image in (degraded, restored, clean)))


def _write(path: Path, results: list[Result]) -> None:
    """A line for every image."""
    with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        writer = csv.writer(file)
        keys = [measure.key for measure in MEASURES]
        writer.writerow(["name", "group", *keys, *(f"unchanged_{key}" for key in keys)])
        for result in results:
            scores = (result.restored, result.unchanged)
            numbers = [round(measure.value(score), 5) for score in scores for measure in MEASURES]
            writer.writerow([result.name, result.group, *numbers])


def _show(console: Console, results: list[Result], title: str) -> None:
    number = np.unique([result.group for result in results], return_inverse=True)[1]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in (title, "restored", "unchanged", "difference", "better on"):
        table.add_column(heading, justify="left" if heading == title else "right", no_wrap=True)
    for measure in MEASURES:
        after = np.array([measure.value(result.restored) for result in results])
        before = np.array([measure.value(result.unchanged) for result in results])
        better = int(((after > before) if measure.more_is_better else (after < before)).sum())
        table.add_row(
            measure.name,
            *(
                _text(bootstrap_mean(values, number), measure.digits, signed)
                for values, signed in ((after, ""), (before, ""), (after - before, "+"))
            ),
            f"{better} of {len(results)}",
        )
    console.width = max(
        console.width, console.measure(table, options=console.options.update(width=1000)).maximum
    )
    console.print(table)
    count = int(number.max()) + 1
    over = f"{count} images" if count == len(results) else f"{count} groups"
    if count > 1:
        few = f"; {over} are too few for a true {100 * CONFIDENCE:g} %" if count < ENOUGH_GROUPS else ""
        console.print(f"[ ]: {100 * CONFIDENCE:g} % interval, bootstrap over {over}{few}", markup=False)


def _text(found: Estimate, digits: int, sign: str) -> str:
    def number(value: float) -> str:
        return f"{value:{sign}.{digits}f}"

    interval = "" if np.isnan(found.low) else f" [{number(found.low)}, {number(found.high)}]"
    return number(found.mean) + interval
