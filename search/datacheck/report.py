"""The command `check`: the pair doctor's findings as text, JSON or a page, and the repaired copy."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data import image_groups
from data.doctor import (
    REPAIR_REPORT,
    CheckReport,
    Finding,
    Severity,
    check_pairs,
    check_quickly,
    refuse_target,
    repair_pairs,
)
from search.datacheck.html import check_page
from search.errors import UserError
from search.terminal import Terminal

LINES = 6
"""So many findings of a kind are printed; --json and --html have all."""
_COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
SPOILED = 1


@dataclass(frozen=True)
class CheckOptions:
    """Settings of `check`: the folder, and the outputs to write."""

    folder: Path
    scan_dir: str | None = None
    clean_dir: str | None = None
    pair_by: str | None = None
    json: str | None = None
    """A file, or - for the terminal."""
    html: Path | None = None
    fix: Path | None = None
    groups: str | None = None
    jobs: int | None = None
    quiet: bool = False


def run_check(options: CheckOptions) -> int:
    """Check the pairs, print the findings, write the outputs; 1 if something would spoil a search, else 0."""
    if options.groups is not None and options.fix is None:
        raise UserError("--groups says what must stay together in the mended copy: use it with --fix OUT")
    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: must be at least 1")
    if options.fix is not None:
        refuse_target(options.folder, options.fix)
    # Paths that cannot be written are reported before minutes of work, not after them.
    for path in (options.html, None if options.json in (None, "-") else Path(str(options.json))):
        if path is not None:
            _make_folder(path)
    with _bar("reading pairs", options.quiet) as step:
        report = check_pairs(
            options.folder,
            options.scan_dir,
            options.clean_dir,
            options.pair_by,
            jobs=options.jobs,
            step=step,
        )
    if options.json == "-":
        print(json.dumps(as_json(report), indent=1))
    elif not options.quiet:
        print_findings(report, Terminal(highlight=False, soft_wrap=True))
    if options.json not in (None, "-"):
        _write(Path(str(options.json)), json.dumps(as_json(report), indent=1))
    if options.html is not None:
        _write(options.html, check_page(report, summary_sentence(report)))
    if options.fix is not None:
        _repair(report, options)
    return SPOILED if report.spoiled else 0


def print_findings(report: CheckReport, console: Console) -> None:
    """Print findings by kind, the worst first, and a summary."""

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False)

    say(f"{printable(report.folder)}: {pair_counts(report)}\n")
    for (severity, title), same in groupby(report.findings, lambda f: (f.severity, f.title)):
        findings = list(same)
        console.print(f"{severity.name.lower()}: ", style=_COLOURS[severity], end="")
        say(title + (f" ({len(findings)})" if len(findings) > 1 else ""), "bold")
        for finding in findings[:LINES]:
            say(f"    {location(finding, report.folder)}{printable(finding.found)}")
        if len(findings) > LINES:
            say(f"    and {len(findings) - LINES} more; all of them with --json - or --html FILE")
        say(f"    -> {findings[0].advice}", "dim")
    say(("\n" if report.findings else "") + summary_sentence(report), "bold")


def summary_sentence(report: CheckReport) -> str:
    """A summary of the findings in one sentence."""
    errors, warnings, notes = (
        sum(finding.severity == severity for finding in report.findings)
        for severity in (Severity.ERROR, Severity.WARNING, Severity.NOTE)
    )
    rest = ", ".join(
        f"{number} {word}{'' if number == 1 else 's'}"
        for number, word in ((warnings, "warning"), (notes, "note"))
        if number
    )
    if not errors:
        return f"Nothing here would spoil a search{f' ({rest})' if rest else ''}."
    kinds = list(dict.fromkeys(f.title for f in report.findings if f.severity == Severity.ERROR))
    first = ", ".join(kinds[:3]) + (", ..." if len(kinds) > 3 else "")
    return f"{errors} error{'s' * (errors > 1)} would spoil a search: {first}{f' ({rest})' if rest else ''}."


def pair_counts(report: CheckReport) -> str:
    """The numbers of pairs in words: "108 pairs (72 train, 36 val)"."""
    parts: dict[str, int] = {}
    for m in report.measured:
        parts[m.pair.part] = parts.get(m.pair.part, 0) + 1
    inside = ", ".join(f"{number} {part}" for part, number in parts.items() if part != "all")
    return f"{len(report.measured)} pairs{f' ({inside})' if inside else ''}"


def location(finding: Finding, folder: Path) -> str:
    """The file or pair that a finding is about, as the start of a line."""
    if finding.whole_set:
        return ""
    if len(finding.files) == 1:
        return f"{printable(relative_path(finding.files[0], folder))}: "
    if finding.pairs:
        return f"{printable(finding.pairs[0])}: "
    return f"{printable(relative_path(finding.files[0].parent, folder))}: " if finding.files else ""


def relative_path(path: Path, folder: Path) -> Path:
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def printable(text: object) -> str:
    """A text that any terminal can print: control characters and undecodable bytes are written as escapes."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def as_json(report: CheckReport) -> dict[str, Any]:
    """The whole report as plain values, for other programs."""
    return {
        "folder": str(report.folder),
        "pairs": len(report.measured),
        "spoiled": report.spoiled,
        "verdict": summary_sentence(report),
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity.name.lower(),
                "title": finding.title,
                "found": finding.found,
                "advice": finding.advice,
                "files": [str(path) for path in finding.files],
                "pairs": list(finding.pairs),
                "whole_set": finding.whole_set,
                **({"facts": finding.facts} if finding.facts else {}),
            }
            for finding in report.findings
        ],
    }


def warnings_for_a_search(
    folder: Path, scan_dir: str | None = None, clean_dir: str | None = None, pair_by: str | None = None
) -> Sequence[str]:
    """Warnings that `run` prints before it starts: a line for each kind of fault that the fast checks found."""
    found = [
        finding
        for finding in check_quickly(folder, scan_dir, clean_dir, pair_by)
        # Images that are left out are reported when the pairs are opened.
        if finding.severity > Severity.NOTE and finding.kind != "left-out"
    ]
    lines = []
    for title, same in groupby(found, lambda finding: finding.title):
        findings = list(same)
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        lines.append(f"{title}: {location(findings[0], folder)}{printable(findings[0].found)}{more}")
    return lines


def _repair(report: CheckReport, options: CheckOptions) -> None:
    assert options.fix is not None
    given = None
    if options.groups is not None:
        given = image_groups(options.groups, [m.pair.name for m in report.measured])
    with _bar("writing pairs", options.quiet) as step:
        plan = repair_pairs(report, options.fix, given, step)
    if not options.quiet and options.json != "-":
        changed = sum(bool(words) for words in plan.changed.values())
        val = sum(part == "val" for part in plan.parts.values())
        print(
            f"{printable(options.fix)}: {len(plan.parts)} pairs ({len(plan.parts) - val} train, {val} val), {changed} "
            f"changed, {len(plan.dropped)} left out; read {REPAIR_REPORT}"
        )


@contextmanager
def _bar(text: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, nothing elsewhere; gives the function to call with done and total."""
    console = Terminal(stderr=True)
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(text, total=None)

        def step(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield step


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8", "backslashreplace")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    print(f"{printable(path)} written", file=sys.stderr)
