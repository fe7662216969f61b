"""Which images belong together: pages with one background, shots of one scene, crops of one photograph."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data.files import EXTENSIONS, DataError, some_names
from data.sources import folder_groups

COLUMNS = ("name", "group")


def image_groups(given: str | None, names: Sequence[str]) -> list[str]:
    """The group of each image.

    `given` is a CSV file with the columns name and group (it may name other images too), or a regular
    expression with one capture group that finds the group in a name; without it the images of a
    sub-folder are a group, and every other image is one of its own. Raises `DataError` for images that get no group.
    """
    if given is None:
        folders = folder_groups(names)
        return [folders.get(name, name) for name in names]
    if Path(given).is_file() or given.endswith(".csv"):
        found = _read(Path(given))
        groups = [found.get(name) for name in names]
    else:
        pattern = _compiled(given)
        groups = [match[1] if (match := pattern.search(name)) else None for name in names]
    if without := [name for name, group in zip(names, groups, strict=True) if not group]:
        raise DataError(
            f"--groups {given}: no group for {len(without)} of {len(names)} images: {some_names(without)}"
        )
    return [group for group in groups if group]


def _read(path: Path) -> dict[str, str]:
    """Group by name. Names may carry the extension of their file."""
    try:
        # Spreadsheets begin their files with a byte-order mark.
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not set(COLUMNS) <= set(rows.fieldnames or ()):
                raise DataError(
                    f"--groups {path}: needs the columns name,group in its first line "
                    f"(found: {','.join(rows.fieldnames or ()) or 'nothing'})"
                )
            groups: dict[str, str] = {}
            for row in rows:
                name, group = _stem((row["name"] or "").strip()), (row["group"] or "").strip()
                if groups.setdefault(name, group) != group:
                    raise DataError(
                        f"--groups {path}: {name} is in two groups, {groups[name]} and {group} (line {rows.line_num})"
                    )
    except OSError as error:
        raise DataError(f"--groups {path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"--groups {path}: not a CSV file: {error}") from None
    return groups


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in EXTENSIONS else name


def _compiled(given: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(given)
    except re.error as error:
        raise DataError(f"--groups {given}: neither a file nor a valid regular expression: {error}") from None
    if pattern.groups != 1:
        raise DataError(
            f"--groups {given}: no such file, and a pattern needs one capture group, as in 'page(\\d+)' "
            f"(found {pattern.groups})"
        )
    return pattern
