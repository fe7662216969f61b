"""Which pairs of a folder belong on one side of a split: sub-folders, and what their pixels have in common."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from data.files import DataError, Pixels, decode_image, some_names
from data.likeness import Groups, Look, equal_groups, link_pairs, look_at, merge_groups
from data.sources.pairing import folder_groups
from data.sources.pixel_cache import each_file
from data.sources.split import PairSet, cache_folder, write_whole

_THREADS = 8


@dataclass(frozen=True)
class Shared:
    """What validation images have in common with training images: their names, each with one of training."""

    alike: dict[str, str]
    """A side is the same, or nearly."""
    background: dict[str, str]
    """Other content on one background."""

    @property
    def note(self) -> str:
        """A few words; empty where nothing is shared."""
        counts = (
            (len(self.alike), "are in training as well (the same or nearly)"),
            (len(self.background), "share a background with training"),
        )
        return " and ".join(f"{number} {what}" for number, what in counts if number)


def pair_groups(names: Sequence[str], files: Mapping[str, Sequence[Path]]) -> list[list[str]]:
    """Groupings of the pairs, the best first: by pixels and sub-folders, then by one of the two.

    `files` are the degraded and the clean image of a pair, or a clean image alone. All are read.
    """
    folders = folder_groups(names)
    by_folder = [folders.get(name, f"/{name}") for name in names]

    def looks(paths: Sequence[Path], background: bool) -> list[Look]:
        return each_file(lambda path: look_at(decode_image(path), background=background), paths)

    scans = looks([files[name][0] for name in names], background=True)
    cleans = looks([files[name][-1] for name in names], False) if len(files[names[0]]) > 1 else scans
    by_pixels = link_pairs(scans, cleans).all()
    merged = merge_groups([by_pixels, equal_groups(by_folder)])
    return [*([names[place] for place in groups] for groups in (merged, by_pixels)), by_folder]


def shared_with_training(
    train: PairSet,
    val: PairSet,
    pixels: Callable[[], tuple[list[Pixels], list[Pixels]]],
    key: str,
    cache: Path,
) -> Shared:
    """What `val` has in common with `train`, by the decoded (C, H, W) pixels of both, training first.

    Found once and kept in `cache`/data under `key`, which stands for all names and pixels.
    """
    kept = _kept(key, cache)
    if kept is not None:
        return kept
    scans, cleans = pixels()

    def looks(side: Sequence[Pixels], background: bool) -> list[Look]:
        with ThreadPoolExecutor(_THREADS) as pool:
            images = [image.transpose(1, 2, 0) for image in side]
            return list(pool.map(lambda image: look_at(image, background=background), images))

    links = link_pairs(looks(scans, True), looks(cleans, False))
    alike = _across(links.alike(), train, val)
    background = _across(links.background, train, val)
    found = Shared(alike, {name: other for name, other in background.items() if name not in alike})
    # Where nothing can be kept, it is found again.
    with suppress(DataError):
        write_whole(_place(key, cache), json.dumps({"alike": found.alike, "background": found.background}))
    return found


def leak_remark(shared: Shared, number: int) -> str:
    """What a person should know and do about it."""
    named = some_names(f"{name} as {other}" for name, other in (shared.alike | shared.background).items())
    return (
        f"scores are too good: of {number} validation images {shared.note}: {named}; "
        "check DIR --fix OUT writes a copy that keeps them together"
    )


def _across(groups: Groups, train: PairSet, val: PairSet) -> dict[str, str]:
    first: dict[int, str] = {}
    for index in range(len(train)):
        first.setdefault(int(groups[index]), train.name(index))
    members = ((val.name(index), int(groups[len(train) + index])) for index in range(len(val)))
    return {name: first[group] for name, group in members if group in first}


def _place(key: str, cache: Path) -> Path:
    return cache_folder(cache) / f"shared-{key}.json"


def _kept(key: str, cache: Path) -> Shared | None:
    try:
        found = json.loads((cache / "data" / f"shared-{key}.json").read_text("utf-8"))
        return Shared(dict(found["alike"]), dict(found["background"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
