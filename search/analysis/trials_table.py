"""The trials of a study as a table: on the terminal, as CSV, as Markdown."""

import re
from collections.abc import Collection, Sequence
from typing import Literal, get_args

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.database import COMPLETE, FAILED, PAUSED, PRUNED, RUNNING, WAITING, Record
from search.text import clock, format_setting, in_thousands, plain_markdown

Sort = Literal["psnr", "number", "seconds"]
Format = Literal["table", "csv", "md"]
SORTS, FORMATS = get_args(Sort), get_args(Format)
FEW_TRIALS = 20  # rows of a table, unless all are asked for
_SETTING = "setting."
COLUMNS = ["", "PSNR (dB)", "steps", "time", "param.", "how it ended", "settings"]
_LAST = len(COLUMNS) - 1
_WIDE = 110  # letters of a terminal that need not be saved
_WIDEST, _NARROWEST = 32, 15  # letters of a column
_STYLES = {COMPLETE: "", PRUNED: "dim", FAILED: "red", RUNNING: "cyan", PAUSED: "cyan", WAITING: "dim"}


def trials_frame(trials: Sequence[Record], best: Record | None = None) -> pd.DataFrame:
    """A row per trial in the given order: its state and scores, then a column `setting.NAME` for each open leaf.

    `psnr_db` is of complete trials; `last_rung_psnr_db` is the last score on the way, at `last_rung_percent`
    of the trial's budget. Seconds hold validation.
    """
    rows = []
    for trial in trials:
        rung = trial.last_rung
        rows.append(
            {
                "number": trial.number,
                "name": trial.label,
                "state": trial.state,
                "best": best is not None and trial.number == best.number,
                "psnr_db": trial.psnr_db,
                "last_rung_psnr_db": rung.psnr_db if rung else None,
                "last_rung_percent": rung.percent if rung else None,
                "steps_done": trial.steps_done,
                "steps": trial.steps,
                "seconds": round(trial.seconds, 3),
                "training_seconds": round(trial.training_seconds, 3),
                "ended": trial.ended or None,
                "parameters": trial.parameters,
                "gmacs_at_256": trial.gmacs_at_256,
                **{f"{_SETTING}{name}": value for name, value in trial.settings.items()},
            }
        )
    table = pd.DataFrame(rows)
    for column in ("parameters", "steps", "steps_done"):
        if column in table:
            table[column] = table[column].astype("Int64")
    return table


def sort_trials(trials: Sequence[Record], sort: Sort) -> list[Record]:
    """Trials in order of score, number, or duration.

    By score, complete trials come first, then the others by the highest rung that they reached.
    """
    if sort == "number":
        return sorted(trials, key=lambda trial: trial.number)
    if sort == "seconds":
        return sorted(trials, key=lambda trial: (-trial.seconds, trial.number))

    def rank(trial: Record) -> tuple[bool, float, float, int]:
        if trial.psnr_db is not None:
            return (False, 0.0, -trial.psnr_db, trial.number)
        rung = max(trial.reported.items(), default=(0, 0.0))
        return (True, -rung[0], -rung[1], trial.number)

    return sorted(trials, key=rank)


def show_trials(
    trials: Sequence[Record], console: Console, best: Record | None, most: int | None = None
) -> None:
    """Print a line per trial, `most` of them, with as many settings as fit into the width of the terminal."""
    varying, left_out = varying_settings(trials), len(trials[most:]) if most else 0
    trials = trials[:most]
    lines = [trial_cells(trial, varying) for trial in trials]
    columns = informative_columns(lines)
    widest = _WIDEST if console.width >= _WIDE else _NARROWEST
    widths = {n: min(max(len(line[n]) for line in [COLUMNS, *lines]), widest) for n in columns}
    widths[_LAST] = max(console.width - sum(widths[n] + 2 for n in columns if n != _LAST), _NARROWEST)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for n in columns:
        table.add_column(COLUMNS[n], justify="left" if n >= _LAST - 1 else "right", min_width=widths[n])
    for trial, line in zip(trials, lines, strict=True):
        winner = best is not None and trial.number == best.number
        # Text, so that no name is taken for markup.
        texts = [Text(_cut(line[n], widths[n])) for n in columns]
        table.add_row(*texts, style="bold green" if winner else _STYLES[trial.state])
    console.width = max(console.width, sum(widths[n] + 2 for n in columns))
    console.print(table)
    if any(line[1].startswith("(") for line in lines):
        console.print(
            "( ): at its last rung, of other images than the final score", style="dim", soft_wrap=True
        )
    if left_out:
        console.print(f"and {left_out} more: --all", style="dim")


def informative_columns(lines: Sequence[Sequence[str]]) -> list[int]:
    """The indices of `COLUMNS` that are filled for at least one trial: filters have no steps."""
    return [n for n in range(len(COLUMNS)) if n == _LAST or any(line[n] not in ("-", "0") for line in lines)]


def trial_cells(trial: Record, varying: Collection[str] | None = None) -> list[str]:
    """The cells of a trial under `COLUMNS`, with only the settings in `varying`."""
    settings = settings_line(trial, varying)
    return [
        str(trial.number),
        _score(trial),
        _steps(trial),
        clock(trial.seconds) if trial.seconds else "-",
        in_thousands(trial.parameters),
        end_in_words(trial),
        f"{trial.label}; {settings}" if trial.label else settings,
    ]


def varying_settings(trials: Sequence[Record]) -> set[str]:
    """The settings that are not the same in all trials."""
    seen: dict[str, set[object]] = {}
    with_settings = [trial for trial in trials if trial.settings]
    for trial in with_settings:
        for name, value in trial.settings.items():
            seen.setdefault(name, set()).add(value)
    everywhere = {name for name in seen if all(name in trial.settings for trial in with_settings)}
    return {name for name in seen if len(seen[name]) > 1 or name not in everywhere} or set(seen)


def trials_markdown(trials: Sequence[Record], best: Record | None, most: int | None = None) -> str:
    """The same as a Markdown table."""
    varying, trials = varying_settings(trials), trials[:most]
    head = ["trial", *COLUMNS[1:]]
    rows = [[plain_markdown(text) for text in trial_cells(trial, varying)] for trial in trials]
    for trial, row in zip(trials, rows, strict=True):
        if best is not None and trial.number == best.number:
            row[:2] = [f"**{text}**" for text in row[:2]]
    columns = informative_columns(rows)
    head, rows = [head[n] for n in columns], [[row[n] for n in columns] for row in rows]
    return markdown_table(head, rows)


def trials_csv(trials: Sequence[Record], best: Record | None) -> str:
    """All columns as CSV. Texts that a spreadsheet would read as a formula begin with an apostrophe."""
    table = trials_frame(trials, best)
    for column in table.select_dtypes(include=["object", "str"]):
        table[column] = table[column].map(_no_formula)
    return table.to_csv(index=False, lineterminator="\n")


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells may hold any text."""
    lines = [head, ["---"] * len(head), *([_cell(text) for text in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def end_in_words(trial: Record) -> str:
    """The state of a trial, or the reason why it ended, in a few words on one line."""
    if trial.state == COMPLETE:
        return "full length" if trial.had_last_stretch else COMPLETE
    text = " ".join((trial.ended or trial.state).split())
    return f"{FAILED}: {text}" if trial.state == FAILED and not text.startswith(FAILED) else text


def settings_line(trial: Record, varying: Collection[str] | None = None) -> str:
    """The open settings in one line, or those `varying`, by the last part of their names where that is clear."""
    shown = {name: value for name, value in trial.settings.items() if varying is None or name in varying}
    ends = [name.rpartition(".")[2] for name in shown]
    names = [short if ends.count(short) == 1 else name for name, short in zip(shown, ends, strict=True)]
    return " ".join(
        f"{name}={format_setting(value)}" for name, value in zip(names, shown.values(), strict=True)
    )


def _score(trial: Record) -> str:
    if trial.psnr_db is not None:
        return f"{trial.psnr_db:.2f}"
    return f"({trial.last_rung.psnr_db:.2f})" if trial.last_rung else "-"


def _steps(trial: Record) -> str:
    if not trial.steps:
        return "-"
    return str(trial.steps) if trial.steps_done == trial.steps else f"{trial.steps_done}/{trial.steps}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _cell(text: str) -> str:
    return " ".join(re.sub(r"(?<!\\)\|", r"\\|", text).split())


def _no_formula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
