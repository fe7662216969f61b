"""The pair doctor: everything that is wrong with a folder of pairs, before a search is spent on it."""

import hashlib
import os
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import cv2

from data.doctor.file_checks import read_label
from data.doctor.findings import Finding, Severity, of_the_set, worst_first
from data.doctor.header_checks import pair_header_findings, set_header_findings
from data.doctor.inventory import PairFiles, take_inventory
from data.doctor.leakage import find_links, leak_findings
from data.doctor.pair_checks import pair_findings
from data.doctor.pair_stats import MeasuredPair, measure_pair
from data.files import DataError
from data.likeness import Links

ALONE = 24
"""As few pairs as this are measured in this process: others take seconds to start."""
_THREADS = 8


@dataclass(frozen=True)
class CheckReport:
    """Findings of a check, the worst first."""

    folder: Path
    findings: list[Finding]
    measured: list[MeasuredPair]
    links: Links | None
    """None where no pair can be read."""
    readable: list[MeasuredPair]
    """The pairs that `links` is about."""

    @property
    def spoiled(self) -> bool:
        """True if anything here would spoil a search."""
        return any(finding.severity == Severity.ERROR for finding in self.findings)


def check_pairs(
    folder: Path,
    scan_dir: str | None = None,
    clean_dir: str | None = None,
    pair_by: str | None = None,
    *,
    jobs: int | None = None,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> CheckReport:
    """Reads every file once, in `jobs` processes (all cores where None). `step` hears of the progress.

    Raises DataError where there are no two folders of images to look at.
    """
    taken = take_inventory(folder, scan_dir, clean_dir, pair_by)
    measured = []
    for done, result in enumerate(_each(taken.pairs, jobs or os.cpu_count() or 1), 1):
        measured.append(result)
        step(done, len(taken.pairs))
    readable = [m for m in measured if m.textures is not None]
    linked = find_links(readable) if readable else None
    judged = [
        *chain.from_iterable(pair_header_findings(m.pair, m.labels, _colourful(m)) for m in measured),
        *pair_findings(readable),
    ]
    ill = {key for f in judged if f.kind in ("swapped", "identical", "constant") for key in f.pairs}
    found = chain(
        taken.findings,
        set_header_findings(taken.pairs),
        of_the_set(judged, len(measured)),
        leak_findings(readable, linked, ill) if linked else (),
    )
    return CheckReport(folder, worst_first(found), measured, linked, readable)


def check_quickly(
    folder: Path, scan_dir: str | None = None, clean_dir: str | None = None, pair_by: str | None = None
) -> list[Finding]:
    """The part of `check` that decodes no pixels: partners, headers, sizes, equal files in train and val.

    Raises DataError where there are no two folders of images to look at.
    """
    taken = take_inventory(folder, scan_dir, clean_dir, pair_by)
    paths = [path for pair in taken.pairs for path in (pair.scan, pair.clean)]
    with ThreadPoolExecutor(_THREADS) as pool:
        labels = dict(zip(paths, pool.map(read_label, paths), strict=True))
    found = [*taken.findings, *set_header_findings(taken.pairs), *_equal_files(taken.pairs)]
    for pair in taken.pairs:
        both = labels[pair.scan], labels[pair.clean]
        found += pair_header_findings(pair, both, None)
        a, b = both[0].header, both[1].header
        if a is not None and b is not None and (a.height, a.width) != (b.height, b.width):
            found.append(
                Finding(
                    "size",
                    f"degraded is {a.width}x{a.height}, clean is {b.width}x{b.height}",
                    (pair.scan, pair.clean),
                    (pair.key,),
                )
            )
    return worst_first(of_the_set(found, len(taken.pairs)))


def _colourful(m: MeasuredPair) -> tuple[float, float] | None:
    return None if m.textures is None else (m.textures[0].colourful, m.textures[1].colourful)


def _each(pairs: Sequence[PairFiles], jobs: int) -> Iterator[MeasuredPair]:
    """The measurements in order, from this process or, of many pairs, from others."""
    if jobs == 1 or len(pairs) <= ALONE:
        yield from map(measure_pair, pairs)
        return
    # Started anew and not forked: this process has threads.
    with ProcessPoolExecutor(jobs, get_context("spawn"), _begin) as pool:
        try:
            yield from pool.map(measure_pair, pairs, chunksize=max(min(len(pairs) // (8 * jobs), 16), 1))
        except BrokenProcessPool:
            raise DataError(
                f"{pairs[0].scan.parent}: a process that read images was killed, most likely for its memory; "
                "use fewer with --jobs 1"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin() -> None:
    """One thread for each process, and Ctrl-C is for the one that started them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _equal_files(pairs: Sequence[PairFiles]) -> Iterator[Finding]:
    """Files of training and validation with equal bytes; only files of equal length are read."""
    for side in ("scan", "clean"):
        by_length: dict[int, list[PairFiles]] = defaultdict(list)
        for pair in pairs:
            path = getattr(pair, side)
            if path.is_file():
                by_length[path.stat().st_size].append(pair)
        for same_length in by_length.values():
            if {pair.part for pair in same_length} >= {"train", "val"}:
                by_digest: dict[bytes, list[PairFiles]] = defaultdict(list)
                for pair in same_length:
                    by_digest[_digest(getattr(pair, side))].append(pair)
                for same in by_digest.values():
                    if {pair.part for pair in same} >= {"train", "val"}:
                        yield Finding(
                            "leak",
                            f"the same {'degraded' if side == 'scan' else 'clean'} file: "
                            + ", ".join(pair.key for pair in same[:4]),
                            tuple(getattr(pair, side) for pair in same),
                            tuple(pair.key for pair in same),
                        )


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
