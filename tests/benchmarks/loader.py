"""Training crops per second of the loader, compared with a plain one that reads files.

The plain loader is the usual one: a torch Dataset that reads both files of a pair with cv2.imread, cuts and turns
one random crop, and a DataLoader that collates. Both run in turns, so that a busy machine slows both down.

    python -m tests.benchmarks.loader
    python -m tests.benchmarks.loader --data DIR --batch 16 --patch 64
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from data import TrainLoader
from data.cropping import Augmentation
from data.files import write_png
from data.sources import PairsConfig, find_parts, match_files

SHAPES = ((16, 64), (4, 128), (32, 64), (8, 256))
"""(batch, patch) of each two rows of the table."""
VARIED = Augmentation(rescale=0.5, mixup=0.5, channel_shuffle=0.5, cutblur=0.5)
"""Of each second row. The plain loader has nothing of the kind."""


class FileDataset(Dataset[tuple[Tensor, Tensor]]):
    """Reads and decodes both files whenever a pair is asked for."""

    def __init__(self, files: list[tuple[Path, Path]], patch: int) -> None:
        self.files, self.patch = files, patch
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        scan, clean = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in self.files[index])
        scan, clean = np.atleast_3d(scan), np.atleast_3d(clean)
        top, left = (int(self.rng.integers(side - self.patch + 1)) for side in clean.shape[:2])
        turns = int(self.rng.integers(4))

        def crop(image: np.ndarray) -> Tensor:
            square = np.rot90(image[top : top + self.patch, left : left + self.patch], turns)
            return torch.from_numpy(np.ascontiguousarray(square.transpose(2, 0, 1))).float() / 255

        return crop(scan), crop(clean)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="folder of pairs (default: 24 generated ones, 512x512 colour PNG)"
    )
    parser.add_argument("--batch", type=int, help="crops per batch, with --patch one row only")
    parser.add_argument("--patch", type=int, help="side of a crop in pixels")
    parser.add_argument("--workers", type=int, default=0, help="processes of the plain loader (default: 0)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each measurement (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, in turns (default: 3)")
    options = parser.parse_args()
    # Fair to the plain loader: torch's threads would make it ten times slower on a busy machine.
    torch.set_num_threads(1)
    shapes = ((options.batch, options.patch),) if options.batch and options.patch else SHAPES
    with tempfile.TemporaryDirectory() as place:
        folder = options.data or generate(Path(place) / "set")
        start = time.perf_counter()
        split = PairsConfig(dir=folder).open(seed=0, cache=Path(place))
        print(f"{split.note}\nopened in {time.perf_counter() - start:.2f} s\n")
        part = find_parts(folder)
        files = list(match_files(part.get("train", part.get("all", folder)), None, None, None).pairs.values())
        print(
            f"{'batch':>12} {'ms/batch':>9} {'crops/s':>9} {'plain ms':>9} {'plain/s':>9} {'ratio':>7}  varied"
        )
        for (batch, patch), augmentation in itertools.product(shapes, (Augmentation(), VARIED)):
            ours = TrainLoader(split.train, batch=batch, patch=patch, augmentation=augmentation, seed=0)
            dataset = FileDataset(files, patch)
            plain = DataLoader(
                dataset,
                batch,
                # Endless, so that batches may be larger than the set.
                sampler=RandomSampler(dataset, replacement=True, num_samples=10**9),
                num_workers=options.workers,
            )
            steps, batches = iter(range(10**9)), iter(plain)
            calls = (lambda ours=ours, steps=steps: ours.batch(next(steps))), (lambda b=batches: next(b))
            measured = [
                [seconds_per_call(call, options.seconds) for call in calls] for _ in range(options.rounds)
            ]
            mine, theirs = (statistics.median(column) for column in zip(*measured, strict=True))
            print(
                f"{f'{batch}x{patch}x{patch}':>12} {1e3 * mine:9.2f} {batch / mine:9.0f} "
                f"{1e3 * theirs:9.2f} {batch / theirs:9.0f} {theirs / mine:7.1f}  "
                f"{'yes' if augmentation is VARIED else 'no'}"
            )


def seconds_per_call(call: Callable[[], object], seconds: float) -> float:
    """Mean wall time of a call, after two that do not count."""
    call()
    call()
    start, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds:
        call()
        count += 1
    return spent / count


def generate(folder: Path) -> Path:
    """24 pairs of smooth colour images with a little noise, 512x512 PNG (about 0.5 MB a file)."""
    rng = np.random.default_rng(0)
    for side in ("scan", "clean"):
        (folder / side).mkdir(parents=True)
    for number in range(24):
        coarse = rng.uniform(0, 255, (16, 16, 3)).astype(np.float32)
        clean = cv2.resize(coarse, (512, 512), interpolation=cv2.INTER_CUBIC)
        for side, noise in (("clean", 1.0), ("scan", 8.0)):
            noisy = clean + rng.normal(0, noise, clean.shape)
            write_png(folder / side / f"{number}.png", noisy.clip(0, 255).astype(np.uint8))
    return folder


if __name__ == "__main__":
    main()
