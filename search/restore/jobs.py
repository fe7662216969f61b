"""Input files to restore, and the output file of each."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.files import DOCUMENTS, FORMATS, left_out
from search.errors import UserError

MAGIC = "*?["


@dataclass(frozen=True)
class Job:
    """One file to read and one to write."""

    source: Path
    target: Path


def find_jobs(
    inputs: Sequence[str], out: Path, suffix: str, extension: str | None
) -> tuple[list[Job], list[Path]]:
    """A job for every image in `inputs`: files, folders with all below them, and patterns. Also what is left out.

    Files of a folder keep their relative paths below `out`. Results have the extension of their source unless
    one is given; PNG stands for formats that are read and not written. Raises `UserError` for inputs that do
    not exist or hold no images, and where a result would overwrite an input or another result.
    """
    found: dict[Path, Path] = {}
    others: list[Path] = []
    for text in inputs:
        for source, relative_target in _found(text, out, others):
            found.setdefault(source, relative_target)
    targets = {
        source: _target(out / relative_target, suffix, extension) for source, relative_target in found.items()
    }
    twice = {target for target, count in Counter(targets.values()).items() if count > 1}
    for source, target in targets.items():
        if target in twice:  # page.png and page.jpg, both to become page.png
            targets[source] = target.with_name(f"{target.stem}{source.suffix}{target.suffix}")
    owners: dict[Path, Path] = {}
    by_name: dict[str, list[Path]] = {}
    for source in found:
        by_name.setdefault(source.name.lower(), []).append(source)
    for source, target in targets.items():
        if any(_same(target, other) for other in by_name.get(target.name.lower(), [])):
            raise UserError(
                f"{printable(target)}: would be written over an input; give another folder, or a --suffix"
            )
        if target in owners:
            raise UserError(
                f"{printable(target)}: both {printable(owners[target])} and {printable(source)} would be written "
                "there; restore them one by one"
            )
        owners[target] = source
    return [Job(source, target) for source, target in targets.items()], others


def printable(path: Path | str) -> str:
    """A path as printable text on one line."""
    text = os.fspath(path).encode("utf-8", "backslashreplace").decode()
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _target(relative_target: Path, suffix: str, extension: str | None) -> Path:
    own = relative_target.suffix if relative_target.suffix.lower() in FORMATS else ".png"
    return relative_target.with_name(f"{relative_target.stem}{suffix}{extension or own}")


def _same(target: Path, source: Path) -> bool:
    """True if both are the same file, also under two names (links, file systems that ignore case)."""
    if target.absolute() == source.absolute():
        return True
    try:
        return target.samefile(source)
    except OSError:
        return False


def _found(text: str, out: Path, others: list[Path]) -> Iterator[tuple[Path, Path]]:
    """Source files of one input, each with its place below the output folder; other files go into `others`."""
    path = Path(text)
    if path.is_dir():
        if out.resolve() == path.resolve():
            raise UserError(f"{printable(out)}: is the input folder; results go to another one")
        yield from _below(path, out, others)
    elif os.path.lexists(path):
        if path.suffix.lower() not in DOCUMENTS:
            advice = left_out([path], documents=True)
            raise UserError(
                f"{printable(path)}: not an image that can be restored (allowed: {' '.join(DOCUMENTS)})"
                + (f"\n{advice}" if advice else "")
            )
        yield path, Path(path.name)
    elif any(sign in text for sign in MAGIC):
        root = _root(path)
        matches = sorted(root.glob(str(path.relative_to(root))))
        images = [match for match in matches if match.suffix.lower() in DOCUMENTS and not match.is_dir()]
        others += (match for match in matches if match not in images)
        if not images:
            raise UserError(_no_images(f"{printable(text)}: matches no images", others))
        yield from ((match, match.relative_to(root)) for match in images)
    else:
        raise UserError(f"{printable(path)}: no such file or folder")


def _below(folder: Path, out: Path, others: list[Path]) -> Iterator[tuple[Path, Path]]:
    """All images below a folder but those in `out`; hidden files are left out."""
    count, own = 0, out.resolve()
    for directory, folders, names in os.walk(folder):
        here = Path(directory)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (here / name).resolve() != own
        )
        for name in sorted(names):
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() in DOCUMENTS:
                count += 1
                yield here / name, (here / name).relative_to(folder)
            else:
                others.append(here / name)
    if not count:
        raise UserError(_no_images(f"{printable(folder)}: no images", others))


def _no_images(what: str, others: Sequence[Path]) -> str:
    advice = left_out(others, documents=True)
    return f"{what} (looked for {' '.join(DOCUMENTS)})" + (f"\n{advice}" if advice else "")


def _root(pattern: Path) -> Path:
    """The folder in a pattern before its first wildcard."""
    parts = pattern.parts
    fixed = next(n for n, part in enumerate(parts) if any(sign in part for sign in MAGIC))
    return Path(*parts[:fixed])
