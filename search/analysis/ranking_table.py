"""A ranking on the terminal, as CSV, as Markdown and as a chart."""

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from search.export import card_table
from search.statistics import CONFIDENCE, ENOUGH_GROUPS, Difference, Effort, Estimate, Ranking, Row
from search.text import clock

CSV, MARKDOWN, CHART = "ranking.csv", "ranking.md", "ranking.png"
PERCENT = f"{100 * CONFIDENCE:g} %"

Column = tuple[str, Callable[[Row], str]]


def show_ranking(ranking: Ranking, console: Console, remarks: Sequence[str]) -> None:
    """Print both tables and what to know about them."""
    for columns in (_scores(ranking), _costs()):
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for heading, _ in columns:
            table.add_column(
                heading, justify="left" if heading in ("study", "model") else "right", no_wrap=True
            )
        for row in ranking.rows:
            table.add_row(*(cell(row) for _, cell in columns), style=None if row.entry.effort else "dim")
        # Rather long lines than numbers cut short.
        console.width = max(
            console.width, console.measure(table, options=console.options.update(width=1000)).maximum
        )
        console.print(table)
        console.print()
    for line in [*ranking_notes(ranking), *remarks]:
        console.print(line, markup=False, soft_wrap=True)


def write_ranking(folder: Path, ranking: Ranking, title: str, remarks: Sequence[str]) -> None:
    """Write ranking.csv, ranking.md and ranking.png into `folder`."""
    lines = [_csv_row(rank, row) for rank, row in enumerate(ranking.rows, start=1)]
    with (folder / CSV).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    _draw(folder / CHART, ranking, title)
    (folder / MARKDOWN).write_text(_markdown(ranking, title, remarks), encoding="utf-8")


def ranking_notes(ranking: Ranking) -> list[str]:
    """Notes on the meaning of the intervals, and on the differences that are not significant."""
    if not ranking.has_intervals:
        return [
            f"all {ranking.images} images are of one group: no intervals, nothing can be called significant"
        ]
    by_image = ranking.groups == ranking.images
    over = f"{ranking.images} images" if by_image else f"{ranking.groups} groups ({ranking.images} images)"
    lines = [f"[ ]: {PERCENT} interval, paired bootstrap over {over}"]
    if not ranking.conclusive:
        lines.append(
            f"{over} are too few for true {PERCENT}: the intervals are a hint, and fewer than {ENOUGH_GROUPS} "
            "never make a difference significant"
        )
    around_zero = [d for d in ranking.differences if not d.gain_db.one_sided]
    lines += [
        f"not significant, 0 is in the interval: {d.better} over {d.worse} {_signed(d.gain_db)}"
        for d in around_zero
    ]
    if ranking.conclusive:
        lines.append(f"all {'other ' if around_zero else ''}differences are significant")
    return lines


def _verdict(difference: Difference, ranking: Ranking) -> str:
    if not difference.gain_db.one_sided:
        return "no"
    return "yes" if ranking.conclusive else "too few groups"


def _scores(ranking: Ranking) -> list[Column]:
    columns: list[Column] = [
        ("study", lambda row: row.entry.name),
        ("PSNR (dB)", lambda row: _plain(row.psnr_db)),
        ("gain over unchanged", lambda row: _signed(row.gain_db)),
        ("SSIM", lambda row: f"{row.ssim:.4f}"),
    ]
    if ranking.filter:
        columns.insert(3, (f"over {ranking.filter}", lambda row: _signed(row.filter_gain_db)))
    return columns


def _costs() -> list[Column]:
    def of_effort(text: Callable[[Effort], str]) -> Callable[[Row], str]:
        return lambda row: text(row.entry.effort) if row.entry.effort else "-"

    return [
        ("study", lambda row: row.entry.name),
        ("model", of_effort(lambda effort: effort.kind)),
        ("RMSE", lambda row: f"{row.rmse_255:.2f}"),
        ("MAE", lambda row: f"{row.mae_255:.2f}"),
        ("765 MAE", lambda row: f"{3 * row.mae_255:.2f}"),
        ("parameters", of_effort(lambda effort: f"{effort.parameters:,}")),
        ("GMACs", of_effort(lambda effort: f"{effort.gmacs_at_256:.2f}")),
        ("ms/megapixel", of_effort(lambda effort: f"{effort.ms_per_megapixel:,.0f}")),
        ("training", of_effort(lambda effort: clock(effort.training_seconds))),
        ("trials", of_effort(lambda effort: str(effort.trials))),
    ]


def _markdown(ranking: Ranking, title: str, remarks: Sequence[str]) -> str:
    differences = [[d.better, d.worse, _signed(d.gain_db), _verdict(d, ranking)] for d in ranking.differences]
    sections = [
        f"# {title}",
        f"![PSNR with intervals, and differences to the best]({CHART})",
        _markdown_table(_scores(ranking), ranking.rows),
        "\n".join(f"- {line}" for line in [*ranking_notes(ranking), *remarks]),
        "## Yardsticks and cost",
        _markdown_table(_costs(), ranking.rows),
        "RMSE and MAE are on 8-bit codes (0 to 255), each image counting alike; 765 MAE is 765 times the mean "
        "absolute error on a scale of 0 to 1. Multiply-adds (10^9) are for 256 x 256 pixels. The time per "
        "megapixel is the median of three runs on one whole image in float32.",
        "## Every difference",
        card_table(["better", "worse", "PSNR (dB)", "significant"], differences),
    ]
    return "\n\n".join(sections) + "\n"


def _markdown_table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    return card_table(
        [heading for heading, _ in columns], [[cell(row) for _, cell in columns] for row in rows]
    )


def _csv_row(rank: int, row: Row) -> dict[str, Any]:
    effort = row.entry.effort
    line: dict[str, Any] = {"place": rank, "study": row.entry.name, "model": effort.kind if effort else ""}
    for name in ("psnr_db", "gain_db", "filter_gain_db", "behind_db"):
        found: Estimate | None = getattr(row, name)
        for part in ("mean", "low", "high"):
            value = getattr(found, part) if found else math.nan
            key = name if part == "mean" else f"{name}_{part}"
            line[key] = "" if math.isnan(value) else round(value, 4)
    line |= {
        "ssim": round(row.ssim, 5),
        "rmse_255": round(row.rmse_255, 4),
        "mae_255": round(row.mae_255, 4),
        "mae_times_765": round(3 * row.mae_255, 4),
    }
    for name in ("parameters", "gmacs_at_256", "ms_per_megapixel", "training_seconds", "trials", "trial"):
        line[name] = round(getattr(effort, name), 4) if effort else ""
    return line


def _draw(path: Path, ranking: Ranking, title: str) -> None:
    """Two panels: PSNR, and the paired difference to the best, whose intervals are narrower."""
    shown = [row for row in ranking.rows if row.entry.effort]
    (unchanged,) = (row for row in ranking.rows if not row.entry.effort)
    figure = Figure(figsize=(10, 1.7 + 0.45 * len(shown)), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    positions = range(len(shown), 0, -1)
    for position, row in zip(positions, shown, strict=True):
        _point(left, position, row.psnr_db, f"{row.psnr_db.mean:.2f}")
        behind = row.behind_db or Estimate(0.0, 0.0, 0.0)
        _point(right, position, behind, f"{behind.mean:+.2f}" if row.behind_db else "best")
    left.set_yticks(list(positions), [row.entry.name for row in shown])
    left.set_ylim(0.4, len(shown) + 0.7)
    left.set_xlabel(f"PSNR (dB); images unchanged: {unchanged.psnr_db.mean:.2f}")
    low, high = left.get_xlim()
    if low - (high - low) < unchanged.psnr_db.mean:  # a far line would squeeze the points
        left.axvline(unchanged.psnr_db.mean, color="0.4", linestyle="--", linewidth=1)
    right.axvline(0, color="0.4", linewidth=1)
    right.set_xlabel("difference to the best (dB)")
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
        axes.margins(x=0.12)
    interval = f"bars: {PERCENT} intervals" if ranking.has_intervals else "one group of images: no intervals"
    figure.suptitle(f"{title}\n{interval}", fontsize=10)
    figure.savefig(path)


def _point(axes: Axes, position: int, found: Estimate, text: str) -> None:
    if not math.isnan(found.low):
        axes.plot([found.low, found.high], [position, position], color="tab:blue", linewidth=2)
    axes.plot(found.mean, position, "o", color="tab:blue", markersize=6)
    axes.annotate(text, (found.mean, position), (0, 7), textcoords="offset points", ha="center", fontsize=8)


def _plain(found: Estimate) -> str:
    interval = "" if math.isnan(found.low) else f" [{found.low:.2f}, {found.high:.2f}]"
    return f"{found.mean:.2f}{interval}"


def _signed(found: Estimate | None) -> str:
    if found is None:
        return "-"
    interval = "" if math.isnan(found.low) else f" [{found.low:+.2f}, {found.high:+.2f}]"
    return f"{found.mean:+.2f}{interval}"
