"""A mended copy of a folder of pairs: repaired where no guess is needed, else left out, or left as it is."""

import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.cropping import dihedral
from data.doctor.check import CheckReport
from data.doctor.file_checks import FORMATS
from data.doctor.findings import Finding
from data.doctor.leakage import find_links, group_names
from data.doctor.pair_checks import is_turned
from data.doctor.pair_stats import MeasuredPair
from data.files import DataError, Header, Pixels, decode_image, with_bits, with_channels, write_png
from data.likeness import equal_groups, merge_groups
from data.sources import folder_groups

DROPPED = (
    "unreadable", "truncated", "empty", "unsupported", "same-name", "size", "wrong-partner", "inverted", "constant",
    "missing-part", "depth-lost", "contradiction", "identical",
)  # fmt: skip
"""Pairs with one of these are left out."""
REPAIR_REPORT = "what-was-done.txt"
VAL_FRACTION = 0.2

Turn = Callable[[Pixels], Pixels]


@dataclass
class RepairPlan:
    """Plan of a repair: what becomes of each pair, by key."""

    dropped: dict[str, str] = field(default_factory=dict)
    """Why a pair is left out."""
    changed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Changes of a pair, in words."""
    parts: dict[str, str] = field(default_factory=dict)
    """train or val."""
    lonely: list[Path] = field(default_factory=list)
    """Files without a partner."""
    left: list[str] = field(default_factory=list)
    """Findings that stay."""


def repair_pairs(
    report: CheckReport,
    out: Path,
    given_groups: Sequence[str] | None = None,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> RepairPlan:
    """Writes `out`/{train,val}/{scan,clean} and a text file that says what was done.

    `given_groups` names the group of every pair of `report.measured`, in that order. Files that need no change are
    copied as they are. `out` appears when it is whole. Raises DataError if it is there already (see `refuse`).
    """
    refuse_target(report.folder, out)
    plan = planned(report, given_groups)
    kept = [m for m in report.readable if m.pair.key not in plan.dropped]
    if len(kept) < 2:
        raise DataError(
            f"{report.folder}: {len(kept)} pair would be left, too few for a search; nothing written"
        )
    places = _names(kept, plan)
    found: dict[str, set[str]] = defaultdict(set)
    for finding in report.findings:
        for key in finding.pairs:
            found[key].add(finding.kind)
    temporary = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for part in ("train", "val"):
            for side in ("scan", "clean"):
                (temporary / part / side).mkdir(parents=True)
        for done, m in enumerate(kept, 1):
            _write(m, found[m.pair.key], plan, temporary / plan.parts[m.pair.key], places[m.pair.key])
            step(done, len(kept))
        (temporary / REPAIR_REPORT).write_text(_told(report, plan, kept), "utf-8", "backslashreplace")
        if out.is_dir():
            out.rmdir()
        temporary.rename(out)
    except OSError as error:
        raise DataError(f"{error.filename or out}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return plan


def refuse_target(folder: Path, out: Path) -> None:
    """Raises DataError if `out` is no place for a copy of `folder`."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is there already; name a new folder, nothing is ever overwritten")
    if out.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{out}: lies inside {folder}, which stays as it is; name a folder outside")


def planned(report: CheckReport, given_groups: Sequence[str] | None = None) -> RepairPlan:
    """The changes that are planned."""
    plan = RepairPlan()
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in report.findings:
        by_kind[finding.kind].append(finding)
    for kind in DROPPED:
        for finding in by_kind[kind]:
            keys = finding.pairs if kind != "same-name" else _keys_of(report, finding.files)
            for key in keys:
                plan.dropped.setdefault(key, f"{finding.title}: {finding.found}")
    for m in report.readable:
        if m.fit is None and not is_turned(m):
            plan.dropped.setdefault(m.pair.key, "two sizes")
    first: dict[tuple[str, str], str] = {}
    for m in report.readable:
        if m.textures is not None and m.pair.key not in plan.dropped:
            both = (m.textures[0].digest, m.textures[1].digest)
            if first.setdefault(both, m.pair.key) != m.pair.key:
                plan.dropped[m.pair.key] = f"the same pair as {first[both]}"
    plan.lonely = [path for finding in by_kind["missing-mate"] for path in finding.files]
    plan.left = [
        f"{finding.title}: {', '.join(finding.pairs[:3])}: {finding.found}"
        for kind in ("shift", "brightness", "colour", "clipped", "noisy-clean", "blurred-clean", "jpeg-clean", "tiny",
                     "profile")
        for finding in by_kind[kind]
        if finding.whole_set or finding.pairs[0] not in plan.dropped
    ]  # fmt: skip
    _split(report, plan, given_groups)
    return plan


def _keys_of(report: CheckReport, files: Sequence[Path]) -> list[str]:
    return [m.pair.key for m in report.measured if {m.pair.scan, m.pair.clean} & set(files)]


def _split(report: CheckReport, plan: RepairPlan, given: Sequence[str] | None) -> None:
    """Parts by group: a group stays or goes where most of its pairs are, or is dealt out where there is no split."""
    kept = [m for m in report.readable if m.pair.key not in plan.dropped]
    if not kept:
        return
    names = None
    if given is not None:
        by_key = {m.pair.key: name for m, name in zip(report.measured, given, strict=True)}
        names = [by_key[m.pair.key] for m in kept]
    groups = group_names(kept, find_links(kept), names)
    folders = folder_groups([m.pair.name for m in kept])
    with_folders = merge_groups(
        [groups, equal_groups([folders.get(m.pair.name, f"/{place}") for place, m in enumerate(kept)])]
    )
    if len(set(with_folders)) > 1:
        groups = with_folders
    members = {
        int(group): [m.pair for m, g in zip(kept, groups, strict=True) if g == group] for group in set(groups)
    }
    if any(m.pair.part == "val" for m in kept) and any(m.pair.part != "val" for m in kept):
        for pairs in members.values():
            part = "val" if 2 * sum(pair.part == "val" for pair in pairs) > len(pairs) else "train"
            plan.parts |= {pair.key: part for pair in pairs}
            for pair in pairs:
                if pair.part != part:
                    plan.changed[pair.key].append(f"moved to {part}, where its group is")
        if set(plan.parts.values()) == {"train", "val"}:
            return
        plan.changed.clear()
    wanted = max(VAL_FRACTION * len(kept), 1)
    order = np.random.default_rng(0).permutation(sorted(members))
    # Small groups first: one that holds most of the set must not become the validation part.
    val = 0
    for group in sorted(order.tolist(), key=lambda group: len(members[group]) > wanted):
        pairs = members[group]
        part = "val" if val + len(pairs) <= wanted * 1.25 and val < wanted else "train"
        val += len(pairs) if part == "val" else 0
        plan.parts |= {pair.key: part for pair in pairs}
    if len(members) > 1 and val == 0:
        smallest = min(members.values(), key=len)
        plan.parts |= {pair.key: "val" for pair in smallest}
    if "val" not in plan.parts.values() or "train" not in plan.parts.values():
        raise DataError(
            f"{report.folder}: all {len(kept)} pairs belong together (the same page, scene or background), so no part "
            "can be held out for validation; add pairs of other scenes"
        )


def _names(kept: Sequence[MeasuredPair], plan: RepairPlan) -> dict[str, str]:
    """File names by key: the pair's own, or with its old part where two would be one."""
    taken: set[tuple[str, str]] = set()
    names = {}
    # Where some lie in sub-folders and some do not, those below would be left out when the copy is read.
    mixed = len({"/" in m.pair.name for m in kept}) > 1
    for m in kept:
        part, name = plan.parts[m.pair.key], m.pair.name
        name = name.replace("/", "-") if mixed else name
        while (part, name) in taken:
            name = f"{name}-from-{m.pair.part}"
        taken.add((part, name))
        names[m.pair.key] = name
    return names


def _write(m: MeasuredPair, found: Set[str], plan: RepairPlan, place: Path, name: str) -> None:
    """Both files of one pair: copied, or decoded, mended and written as PNG."""
    turns, words = _repairs(m, found)
    for side in ("scan", "clean"):
        (place / side / name).parent.mkdir(parents=True, exist_ok=True)
    plan.changed[m.pair.key] += words
    sources = (m.pair.clean, m.pair.scan) if "swapped" in found else (m.pair.scan, m.pair.clean)
    for side, source, turn in zip(("scan", "clean"), sources, turns, strict=True):
        if turn is not None:
            write_png(place / side / f"{name}.png", np.ascontiguousarray(turn(decode_image(source))))
            continue
        label = m.labels[0 if source == m.pair.scan else 1]
        suffixes = FORMATS.get(label.format, (source.suffix,))
        suffix = source.suffix if source.suffix.lower() in suffixes else suffixes[0]
        if suffix != source.suffix:
            plan.changed[m.pair.key].append(f"{source.name} is {label.format}: named {suffix}")
        shutil.copyfile(source, place / side / f"{name}{suffix}")


def _repairs(m: MeasuredPair, found: Set[str]) -> tuple[list[Turn | None], list[str]]:
    """Changes of the pixels that will be the degraded and the clean side, and in words."""
    headers = _headers(m)
    steps: list[list[Turn]] = [[], []]
    words = []
    for side, label in enumerate(m.labels):
        if label.orientation != 1 or label.format not in FORMATS or headers[side].simplified:
            steps[side].append(lambda pixels: pixels)
            words.append(f"{('degraded', 'clean')[side]} side written upright, as plain pixels")
    if {"exif", "turned"} & found and is_turned(m):
        steps[0].append(_turned(m.element))
        words.append("degraded side turned as the clean side is")
    if "channel-order" in found:
        steps[0].append(lambda pixels: pixels[..., ::-1])
        words.append("red and blue of the degraded side exchanged")
    bits = max(header.bits for header in headers)
    channels = max(header.channels for header in headers)
    for side, header in enumerate(headers):
        if header.bits != bits:
            steps[side].append(lambda pixels: with_bits(pixels, bits))
            words.append("the side of 8 bit widened to 16")
        if header.channels != channels:
            steps[side].append(lambda pixels: with_channels(pixels, channels))
            words.append("the gray side written as colour")
    if "swapped" in found:
        steps.reverse()
        words.append("sides exchanged")

    def chained(todo: list[Turn]) -> Turn | None:
        def turn(pixels: Pixels) -> Pixels:
            for one in todo:
                pixels = one(pixels)
            return pixels

        return turn if todo else None

    return [chained(todo) for todo in steps], words


def _headers(m: MeasuredPair) -> tuple[Header, Header]:
    scan, clean = (label.header for label in m.labels)
    assert scan is not None and clean is not None, "only readable pairs are kept"
    return scan, clean


def _turned(element: int) -> Turn:
    return lambda pixels: dihedral(pixels.transpose(2, 0, 1), element).transpose(1, 2, 0)


def _told(report: CheckReport, plan: RepairPlan, kept: Sequence[MeasuredPair]) -> str:
    val = sum(part == "val" for part in plan.parts.values())
    lines = [
        f"A mended copy of {report.folder}, which was not touched.",
        f"{len(kept)} of {len(report.measured)} pairs: {len(kept) - val} train, {val} val. Pairs of one group "
        "(page, scene, background, copies) are on one side.",
    ]
    for title, entries in (
        ("Changed", [f"{key}: {'; '.join(words)}" for key, words in sorted(plan.changed.items()) if words]),
        ("Left out", [f"{key}: {why}" for key, why in sorted(plan.dropped.items())]),
        ("Without a partner, left out", [str(path) for path in plan.lonely]),
        ("Found, and left as it is", plan.left),
        (
            "Split",
            [f"{part}: {key}" for key, part in sorted(plan.parts.items(), key=lambda item: item[::-1])],
        ),
    ):
        lines += ["", f"{title} ({len(entries)})", *(f"  {entry}" for entry in entries)]
    return "\n".join(lines) + "\n"
