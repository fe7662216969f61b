"""Planted faults that the pair doctor finds, its findings in the unchanged set, and its time.

All faults of single pairs are planted at once, each into a pair of its own, into a copy of the set; faults of the
whole set are planted into copies of their own. A fault counts as found if it is reported by its own name, for its own
pair. Findings in the unchanged set, and in pairs without a planted fault, are printed as well.

    python -m tests.benchmarks.check --data DIR
"""

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms

from data.doctor import CheckReport, Finding, Severity, check_pairs, check_quickly
from data.doctor.inventory import PairFiles, take_inventory
from data.files import Pixels, decode_image, jpeg_round_trip, with_channels, write_png

_ORIENTATION = 0x0112
COLOUR_ONLY = {"channel-order", "colour"}


@dataclass(frozen=True)
class Planted:
    """A fault that should be reported as `kind` (or one of several, separated by |) for one of `keys`."""

    name: str
    kind: str
    keys: frozenset[str]


class PlantedSet:
    """A copy of a set, with a fresh pair for every fault."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.pairs = take_inventory(folder, None, None).pairs
        self.rng = np.random.default_rng(seed)
        train = [pair for pair in self.pairs if pair.part != "val"]
        self._fresh = [train[place] for place in self.rng.permutation(len(train))]
        self.planted: list[Planted] = []
        self.touched: set[str] = set()
        self.colour = decode_image(self.pairs[0].scan).shape[2] == 3

    def fresh(self) -> PairFiles:
        pair = self._fresh.pop()
        self.touched.add(pair.key)
        return pair

    def plant(self, name: str, kind: str, *keys: str) -> None:
        self.planted.append(Planted(name, kind, frozenset(keys)))
        self.touched.update(keys)


def rewritten(path: Path, pixels: Pixels) -> Path:
    """Replace the file by a PNG of these pixels."""
    path.unlink()
    path = path.with_suffix(".png")
    write_png(path, np.ascontiguousarray(pixels))
    return path


def deep(pixels: Pixels, change: Callable[[np.ndarray], np.ndarray]) -> Pixels:
    return change(pixels.astype(np.float64)).round().clip(0, 255).astype(np.uint8)


def files_that_cannot_be_read(planted_set: PlantedSet) -> None:
    pair = planted_set.fresh()
    pair.scan.unlink()
    planted_set.plant("degraded side missing", "missing-mate", pair.key)
    pair = planted_set.fresh()
    pair.clean.unlink()
    planted_set.plant("clean side missing", "missing-mate", pair.key)
    pair = planted_set.fresh()
    Image.fromarray(decode_image(pair.clean)[::-1, :, 0]).save(pair.clean.with_suffix(".bmp"))
    planted_set.plant("two clean files of one name", "same-name", pair.key)
    pair = planted_set.fresh()
    pair.scan.write_bytes(b"")
    planted_set.plant("0 bytes", "empty", pair.key)
    pair = planted_set.fresh()
    pair.clean.write_bytes(pair.clean.read_bytes()[: pair.clean.stat().st_size * 2 // 3])
    planted_set.plant("cut short", "truncated", pair.key)
    pair = planted_set.fresh()
    pair.scan.write_bytes(b"<!doctype html><title>404 Not Found</title>")
    planted_set.plant("a web page", "unreadable", pair.key)
    pair = planted_set.fresh()
    pixels = decode_image(pair.scan)[..., 0].astype(np.float32)
    pair.scan.unlink()
    Image.fromarray(pixels / 255).save(pair.scan.with_suffix(".tif"))
    planted_set.plant("floating point", "unsupported", pair.key)


def formats(planted_set: PlantedSet) -> None:
    pair = planted_set.fresh()
    path = rewritten(pair.scan, decode_image(pair.scan))
    path.rename(path.with_suffix(".webp"))
    planted_set.plant("PNG called WebP", "extension", pair.key)
    pair = planted_set.fresh()
    path = rewritten(pair.clean, decode_image(pair.clean))
    Image.open(path).save(path, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes())
    planted_set.plant("colour profile on the clean side", "profile", pair.key)
    pair = planted_set.fresh()
    rewritten(pair.clean, decode_image(pair.clean).astype(np.uint16) * 257)
    planted_set.plant("16 bit on the clean side", "bit-depth", pair.key)
    pair = planted_set.fresh()
    rewritten(pair.scan, decode_image(pair.scan).astype(np.uint16))
    planted_set.plant("8-bit values in 16 bit", "depth-lost", pair.key)
    pair = planted_set.fresh()
    pixels = with_channels(decode_image(pair.clean), 1)
    tinted = np.repeat(pixels, 3, 2) // np.array([1, 1, 2], np.uint8)
    rewritten(pair.clean, pixels if planted_set.colour else tinted.astype(np.uint8))
    planted_set.plant("gray beside colour", "channels", pair.key)
    pair = planted_set.fresh()
    image = Image.fromarray(np.squeeze(decode_image(pair.scan))).convert("RGB").quantize(256)
    pair.scan.unlink()
    image.save(pair.scan.with_suffix(".png"))
    planted_set.plant("palette", "simplified", pair.key)
    pair = planted_set.fresh()
    for path in (pair.scan, pair.clean):
        rewritten(path, decode_image(path)[:23, :31])
    planted_set.plant("31x23 pixels", "tiny", pair.key)


def geometry(planted_set: PlantedSet) -> None:
    pair = planted_set.fresh()
    rewritten(pair.scan, decode_image(pair.scan)[:-7])
    planted_set.plant("7 rows fewer", "size", pair.key)
    pair = planted_set.fresh()
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    image = Image.fromarray(np.squeeze(decode_image(pair.scan)))
    pair.scan.unlink()
    image.save(pair.scan.with_suffix(".png"), exif=exif)
    planted_set.plant("EXIF rotation on one side", "exif", pair.key)
    pair = planted_set.fresh()
    rewritten(pair.scan, decode_image(pair.scan)[::-1, ::-1])
    planted_set.plant("upside down", "turned", pair.key)
    pair = planted_set.fresh()
    rewritten(pair.clean, decode_image(pair.clean)[:, ::-1])
    planted_set.plant("mirrored", "turned", pair.key)
    for dx, dy in ((0.9, 0.7), (5.0, -3.0)):
        pair = planted_set.fresh()
        pixels = decode_image(pair.scan)
        matrix = np.float32([[1, 0, dx], [0, 1, dy]])
        moved = cv2.warpAffine(
            pixels, matrix, pixels.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        )
        rewritten(pair.scan, np.atleast_3d(moved))
        planted_set.plant(f"shifted by {dx}, {dy} px", "shift", pair.key)


def content(planted_set: PlantedSet) -> None:
    pair, other = planted_set.fresh(), planted_set.fresh()
    while decode_image(pair.clean).shape != decode_image(other.clean).shape or np.array_equal(
        decode_image(pair.clean), decode_image(other.clean)
    ):
        other = planted_set.fresh()
    ours, theirs = decode_image(pair.clean), decode_image(other.clean)
    rewritten(pair.clean, theirs), rewritten(other.clean, ours)
    planted_set.plant("partners exchanged", "wrong-partner", pair.key)
    planted_set.plant("partners exchanged (the other)", "wrong-partner", other.key)
    pair = planted_set.fresh()
    scan, clean = decode_image(pair.scan), decode_image(pair.clean)
    rewritten(pair.scan, clean), rewritten(pair.clean, scan)
    planted_set.plant("sides swapped", "swapped", pair.key)
    pair = planted_set.fresh()
    rewritten(pair.scan, 255 - decode_image(pair.scan))
    planted_set.plant("negative", "inverted", pair.key)
    pair = planted_set.fresh()
    rewritten(pair.clean, np.full_like(decode_image(pair.clean), 255))
    planted_set.plant("clean side blank", "constant", pair.key)
    pair = planted_set.fresh()
    pixels = decode_image(pair.scan).copy()
    pixels[len(pixels) * 2 // 3 :] = 128
    rewritten(pair.scan, pixels)
    planted_set.plant("lower third missing", "missing-part", pair.key)
    pair = planted_set.fresh()
    rewritten(pair.scan, decode_image(pair.clean))
    planted_set.plant("clean on both sides", "identical", pair.key)


def values(planted_set: PlantedSet) -> None:
    for name, kind, change in (
        ("60 levels brighter", "brightness", lambda x: x + 60),
        ("overexposed", "clipped", lambda x: x * 2.5),
        ("red and blue exchanged", "channel-order", lambda x: x[..., ::-1]),
        ("red cast", "colour", lambda x: x + np.array([20, 0, 0])),
    ):
        if kind in COLOUR_ONLY and not planted_set.colour:
            continue
        pair = planted_set.fresh()
        # Exchanged colours need some colour, and a dark image stays unclipped however it is exposed.
        while (kind == "channel-order" and np.ptp(decode_image(pair.clean).mean((0, 1))) < 15) or (
            kind == "clipped" and np.percentile(decode_image(pair.scan), 70) < 110
        ):
            pair = planted_set.fresh()
        rewritten(pair.scan, deep(decode_image(pair.scan), change))
        planted_set.plant(name, kind, pair.key)
    for name, kind, spoil in (
        ("clean side noisy", "noisy-clean", lambda x: x + planted_set.rng.normal(0, 15, x.shape)),
        ("clean side blurred", "blurred-clean", lambda x: np.atleast_3d(cv2.GaussianBlur(x, (0, 0), 2.0))),
    ):
        pair = planted_set.fresh()
        rewritten(pair.clean, deep(decode_image(pair.clean), spoil))
        planted_set.plant(name, kind, pair.key)
    pair = planted_set.fresh()
    rewritten(pair.clean, jpeg_round_trip(decode_image(pair.clean), 80))
    planted_set.plant("clean side was a JPEG", "jpeg-clean", pair.key)


def copies(planted_set: PlantedSet) -> None:
    def copied(pair: PairFiles, side: str, part: str, name: str) -> Path:
        path: Path = getattr(pair, side)
        place = Path(str(path).replace("/train/", f"/{part}/")).with_name(f"{name}{path.suffix}")
        shutil.copy(path, place)
        return place

    pair = planted_set.fresh()
    for side in ("scan", "clean"):
        copied(pair, side, "train", "copy")
    planted_set.plant("pair copied", "duplicate", "train/copy", pair.key)
    pair, other = planted_set.fresh(), planted_set.fresh()
    copied(pair, "scan", "train", "second")
    copied(other, "clean", "train", "second")
    planted_set.plant("one degraded, two clean", "contradiction", "train/second", pair.key)
    planted_set.touched.add(other.key)
    pair = planted_set.fresh()
    for side in ("scan", "clean"):
        copied(pair, side, "val", "leaked")
    planted_set.plant("pair in training and validation", "leak", "val/leaked", pair.key)
    pair = planted_set.fresh()
    for side in ("scan", "clean"):
        path = copied(pair, side, "val", "similar")
        pixels = decode_image(path)
        smaller = cv2.resize(pixels, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
        rewritten(path, jpeg_round_trip(deep(np.atleast_3d(smaller), lambda x: x * 0.97), 97))
    planted_set.plant("smaller copy in validation", "near-leak", "val/similar", pair.key)
    pair = planted_set.fresh()
    for side in ("scan", "clean"):
        path = copied(pair, side, "val", "over it")
        pixels = decode_image(path).copy()
        for top in range(30, pixels.shape[0], 60):
            cv2.putText(
                pixels, "Other words", (20 + top % 70, top), cv2.FONT_HERSHEY_SIMPLEX, 1.4, (20, 20, 20), 3
            )
        rewritten(path, pixels)
    planted_set.plant(
        "other text on a background of training", "shared-background|near-leak", "val/over it", pair.key
    )


def whole_sets(folder: Path, place: Path) -> Iterator[tuple[str, str, Path]]:
    """Name, kind and folder of faults that every pair has."""

    def copy(name: str) -> tuple[Path, list[PairFiles]]:
        shutil.copytree(folder, place / name)
        return place / name, take_inventory(place / name, None, None).pairs

    there, pairs = copy("swapped")
    for pair in pairs:
        scan, clean = pair.scan.read_bytes(), pair.clean.read_bytes()
        pair.scan.write_bytes(clean), pair.clean.write_bytes(scan)
    yield "all sides swapped", "swapped", there
    there, pairs = copy("shuffled")
    for name in {pair.part for pair in pairs}:
        part = [pair for pair in pairs if pair.part == name]
        cleans = [pair.clean.read_bytes() for pair in part]
        for pair, content in zip(part, [*cleans[5:], *cleans[:5]], strict=True):
            pair.clean.write_bytes(content)
    yield "all partners mixed up", "wrong-partner", there
    there, pairs = copy("random split")
    order = np.random.default_rng(0).permutation(len(pairs))
    for index in order[: len(pairs) // 5]:
        for path in (pairs[index].scan, pairs[index].clean):
            other = Path(str(path).replace("/train/", "/val/"))
            if other != path:
                path.rename(other)
    yield "split by chance", "leak|shared-name", there


def found(planted: Planted, report: CheckReport) -> bool:
    return any(
        finding.kind in planted.kind.split("|") and (planted.keys & named(finding))
        for finding in report.findings
    )


def named(finding: Finding) -> set[str]:
    """The pairs that a finding is about; for a file without partner, the pair it belonged to."""
    lonely = {f"{path.parent.parent.name}/{path.stem}" for path in finding.files if not finding.pairs}
    return set(finding.pairs) | lonely


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="pairs: DIR/{train,val}/{scan,clean}")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="which pairs get which fault (default: 0)")
    parser.add_argument("--time", type=int, metavar="N", help="measure the time on N pairs, by repetition")
    parser.add_argument("--show", action="store_true", help="print every finding")
    options = parser.parse_args()
    if options.time:
        how_long(options.data, options.time, options.jobs)
    with tempfile.TemporaryDirectory() as place:
        untouched = Path(place) / "untouched"
        shutil.copytree(options.data, untouched)
        start, busy = time.perf_counter(), cpu_seconds()
        clean = check_pairs(untouched, jobs=options.jobs)
        seconds, busy = time.perf_counter() - start, cpu_seconds() - busy
        shutil.copytree(untouched, Path(place) / "planted")
        planted_set = PlantedSet(Path(place) / "planted", options.seed)
        for plant in (files_that_cannot_be_read, formats, geometry, content, values, copies):
            plant(planted_set)
        report = check_pairs(Path(place) / "planted", jobs=options.jobs)
        quirks = {finding.kind for finding in clean.findings if finding.whole_set}
        rows = [(p.name, p.kind, found(p, report)) for p in planted_set.planted]
        for name, kind, there in whole_sets(untouched, Path(place)):
            told = check_pairs(there, jobs=options.jobs)
            if options.show:
                print(f"{name}:", *map(line, told.findings), sep="\n  ")
            rows.append((name, kind, bool({*kind.split("|")} & {f.kind for f in told.findings})))
    for name, kind, hit in rows:
        print(
            f"{name:<40} {kind:<27} {'found' if hit else 'MISSED'}{', as in the whole set' * (kind in quirks)}"
        )
    kinds = {kind for _, kind, hit in rows if hit}
    print(f"\n{sum(hit for *_, hit in rows)} of {len(rows)} planted faults found, of {len(kinds)} kinds")
    alarms = [f for f in clean.findings if f.severity > Severity.NOTE and not f.whole_set]
    print(f"\nuntouched set: {len(alarms)} false alarms")
    print(*(f"  {line(f)}" for f in alarms), sep="\n")
    print("told of the untouched set as a whole:")
    print(*(f"  {line(f)}" for f in clean.findings if f.whole_set), sep="\n")
    extra = [
        f
        for f in report.findings
        if not f.whole_set and f.severity > Severity.NOTE and not named(f) & planted_set.touched
    ]
    print(f"planted copy: {len(extra)} alarms about pairs with nothing planted")
    print(*(f"  {line(f)}" for f in extra), sep="\n")
    if options.show:
        print("all findings of the planted copy:")
        print(*(f"  {line(f)}" for f in report.findings), sep="\n")
    pairs = len(clean.measured)
    print(f"\n{pairs} pairs in {seconds:.1f} s with {options.jobs} processes, {busy:.1f} s of CPU")


def how_long(folder: Path, number: int, jobs: int) -> None:
    """Prints the time for `number` pairs, which are those of the folder again and again."""
    pairs = take_inventory(folder, None, None).pairs
    with tempfile.TemporaryDirectory() as place:
        for side in ("scan", "clean"):
            (Path(place) / side).mkdir()
            for count in range(number):
                path = getattr(pairs[count % len(pairs)], side).resolve()
                (Path(place) / side / f"{count}{path.suffix}").symlink_to(path)
        start = time.perf_counter()
        check_quickly(Path(place))
        fast = time.perf_counter() - start
        start, busy = time.perf_counter(), cpu_seconds()
        check_pairs(Path(place), jobs=jobs)
        seconds, busy = time.perf_counter() - start, cpu_seconds() - busy
    print(
        f"{number} pairs: {seconds:.0f} s with {jobs} processes, {busy:.0f} s of CPU, their start included; "
        f"the fast part alone {fast:.2f} s\n"
    )


def cpu_seconds() -> float:
    """CPU seconds of this process and of its ended child processes."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def line(finding: Finding) -> str:
    return f"{finding.severity.name.lower()} {finding.kind}: {', '.join(sorted(named(finding))[:3])}: {finding.found}"


if __name__ == "__main__":
    main()
