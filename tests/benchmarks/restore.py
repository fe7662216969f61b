"""Large scans through `restore`: memory, seams against the image restored as a whole, and speed.

    python -m tests.benchmarks.restore --size 4000x3000
    python -m tests.benchmarks.restore --size 12000x9000 --only memory

A width-16 KBNet_s is trained for some seconds on the embedded data and exported, unless --model names an
export. Scans are made of embedded pages, worn and scanned like those of the demo, laid side by side.
Memory is the largest resident size of a process that runs the command, as the system counts it (Unix). Seams
and speed are measured on a crop of 2000 x 1500 pixels, or --crop; speed in processor time, turn by turn.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from data.demo.pages import render_page
from data.demo.scanner import PAGE, poor_scan
from data.demo.texts import TRAIN_TEXTS, VAL_TEXTS
from data.files import Pixels, to_tensor, with_bits, with_channels, write_png
from models.layers import Whole
from search.export import ExportedModel, load_exported
from search.inference import ImageSample, Precision, TiledImage, Tiles, Tiling
from search.restore import RestorerOptions
from search.restore.restorer import CPU_SIDE, Restorer

CELL = 1500, 1125  # height and width of a page
PAGES = 6
STUDY = """
name = "wide"
trials = 1
finale = 0.01
[recipe]
steps = {steps}
evaluations = 1
precision = "fp32"
ema_decay = 0.9
val_megapixels = 0.3
crops = {{ batch = 4, patch = 64 }}
optimizer = {{ kind = "adamw", lr = 3e-3 }}
data = {{ kind = "demo" }}
[recipe.model]
kind = "kbnet_s"
width = 16
encoder_blocks = [1]
middle_blocks = 1
decoder_blocks = [1]
lightweight = true
"""


def scan(height: int, width: int, seed: int = 0) -> Pixels:
    """(height, width, 3) of worn pages side by side, each a little lighter or darker than the others."""
    rng = np.random.default_rng(seed)
    texts = TRAIN_TEXTS + VAL_TEXTS
    sheets = [poor_scan(render_page(*CELL, texts, layout, rng), PAGE, rng) for layout in range(PAGES)]
    result = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, CELL[0]):
        for left in range(0, width, CELL[1]):
            place = result[top : top + CELL[0], left : left + CELL[1]]
            sheet = sheets[rng.integers(PAGES)][: place.shape[0], : place.shape[1]]
            place[...] = (sheet * np.float32(rng.uniform(0.85, 1.0))).astype(np.uint8)
    return result


def trained(folder: Path, steps: int) -> Path:
    """The export of a study of one short trial."""
    study = folder / "wide.toml"
    study.write_text(STUDY.format(steps=steps), encoding="utf-8")
    command = [sys.executable, "-m", "search"]
    out = ["--out", str(folder / "runs")]
    subprocess.run([*command, "run", "--study", str(study), *out, "--quiet"], check=True)
    subprocess.run([*command, "export-best", "--study", "wide", *out], check=True)
    return folder / "runs" / "wide" / "export"


def memory(model: Path, sizes: tuple[int, int], kinds: list[str], precision: str, folder: Path) -> None:
    """Restore scans, each in a process of its own."""
    colour = scan(*sizes)
    for kind in kinds:
        channels = {"gray": 1, "colour": 3}[kind]
        path = folder / f"{kind}.png"
        write_png(path, with_channels(colour, channels))
        arguments = ["restore", str(model), str(path), "-o", str(folder / "out"), "--precision", precision]
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "search", *arguments])
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        assert status == 0, "the command failed"
        print(
            f"{kind} {sizes[1]} x {sizes[0]}: peak {usage.ru_maxrss * 1024 / 1e9:.2f} GB, {seconds:.0f} s "
            f"({usage.ru_utime + usage.ru_stime:.0f} s of processor time)",
            flush=True,
        )
        path.unlink()


def seams(exported: ExportedModel, crop: Pixels, tile: int) -> None:
    """Largest and mean difference to the image restored at once, on 16-bit levels, in units of 1/255."""
    deep = with_bits(crop, 16)
    whole, trace = Restorer(exported, RestorerOptions(torch.device("cpu"), "fp32", tile=10**6)).restore(deep)
    assert trace.tile is None
    found, trace = Restorer(exported, RestorerOptions(torch.device("cpu"), "fp32", tile=tile)).restore(deep)
    apart = np.abs(found.astype(np.int32) - whole) / 257
    print(
        f"tiles of {tile} ({trace.margin} around, {trace.passes} pass{'es' * (trace.passes > 1)}) and the image at "
        f"once: at most {apart.max():.3f} of 255 apart, mean {apart.mean():.4f}; said: {255 * trace.difference:.3f}",
        flush=True,
    )
    change = np.abs(deep.astype(np.int32) - whole) / 257
    print(f"  (the restored image is {change.mean():.1f} of 255 from the degraded one)", flush=True)


def knowledge(exported: ExportedModel, crop: Pixels, tile: int) -> None:
    """The same for tiles that know nothing of the whole, or what a plain sample or a calibrated one tells."""
    tiles = Tiles(exported.model, Precision("fp32", torch.device("cpu")))
    if not tiles.is_global:
        return
    degraded = to_tensor(crop)
    image = TiledImage(lambda rows, columns: degraded[:, rows, columns], *degraded.shape[1:])
    margin = -(-32 // tiles.multiple) * tiles.multiple
    with torch.inference_mode():
        whole = exported.model(degraded[None])[0]

    def apart(known: Whole | None) -> float:
        result = torch.empty_like(degraded)

        def write(top: int, rows: torch.Tensor) -> None:
            result[:, top : top + rows.shape[1]] = rows

        tiles.restore(image, Tiling(tile, margin), write, known, lambda pixels: None)
        return 255 * float((result - whole).abs().max())

    sample = ImageSample.drawn_from(image, tiles.multiple, 2**20)
    calibrated = tiles.estimate_statistics(sample)
    plain = tiles.estimate_statistics(ImageSample(sample.patches, sample.area, None, sample.busiest))
    print(f"each tile by itself: {apart(None):.2f} of 255 from the image at once", flush=True)
    print(f"statistics of {len(sample.patches)} patches, plain means: {apart(plain):.2f}", flush=True)
    print(f"calibrated: {apart(calibrated):.2f}", flush=True)
    tiles.calibrate_statistics(calibrated, sample)
    print(f"after a pass over all tiles: {apart(calibrated):.3f}", flush=True)


def speed(exported: ExportedModel, crop: Pixels, tile: int, repeats: int) -> None:
    """Medians of processor time, everything that `restore` does with the pixels included, turn by turn."""
    how = {
        name: RestorerOptions(torch.device("cpu"), "fp32", tile=side)
        for name, side in (("whole", 10**6), ("tiles", tile))
    }
    seconds: dict[str, list[float]] = {name: [] for name in how}
    for _ in range(repeats):
        for name in how:
            restorer = Restorer(exported, how[name])
            started = time.process_time()
            restorer.restore(crop)
            seconds[name].append(time.process_time() - started)
    whole, tiles = (statistics.median(seconds[name]) for name in ("whole", "tiles"))
    print(
        f"processor time: at once {whole:.1f} s, in tiles of {tile} {tiles:.1f} s; tiles are {whole / tiles:.2f} "
        f"times as fast (median of {repeats})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="4000x3000", help="width x height of the scans")
    parser.add_argument("--crop", default="2000x1500", help="width x height for seams and speed")
    parser.add_argument("--model", type=Path, help="an export (default: one is trained)")
    parser.add_argument("--steps", type=int, default=150, help="of that training")
    parser.add_argument("--kinds", default="gray,colour", help="of scans")
    parser.add_argument("--precision", default="auto", help="of the scans (seams and speed: fp32)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tile", type=int, default=CPU_SIDE, help="side of the tiles for seams and speed")
    parser.add_argument("--only", choices=("memory", "seams", "knowledge", "speed"))
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    crop_width, crop_height = (int(side) for side in options.crop.split("x"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = options.model or trained(folder, options.steps)
        exported = load_exported(model)
        crop = with_channels(scan(crop_height, crop_width), exported.channels)
        if options.only in (None, "seams"):
            seams(exported, crop, options.tile)
        if options.only in (None, "knowledge"):
            knowledge(exported, crop, options.tile)
        if options.only in (None, "speed"):
            speed(exported, crop, options.tile, options.repeats)
        if options.only in (None, "memory"):
            memory(model, (height, width), options.kinds.split(","), options.precision, folder)


if __name__ == "__main__":
    main()
