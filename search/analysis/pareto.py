"""Quality against cost of a study's finished trials, and their Pareto front: those that no other beats in both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.analysis.chart_values import floor_without_outliers, upper_front
from search.analysis.trials_table import settings_line, varying_settings
from search.database import COMPLETE, PRUNED, Record, make_writable
from search.errors import UserError
from search.text import in_thousands, short_number

Cost = Literal["parameters", "gmacs", "ms"]
COSTS: tuple[Cost, ...] = get_args(Cost)
_RECORDED = {"parameters": "parameters", "gmacs": "gmacs_at_256", "ms": "ms_per_megapixel"}
_LABELS = {"parameters": "parameters", "gmacs": "GMACs at 256 x 256", "ms": "ms per megapixel"}
MOST_OTHERS = 12  # rows of a table beside the front


@dataclass(frozen=True)
class ParetoPoint:
    """A trial with the cost and the score of its model."""

    record: Record
    cost: float
    psnr_db: float
    percent: float
    """Of its training that it had: 100 for one that is complete."""


def pareto_points(records: Sequence[Record], by: Cost) -> list[ParetoPoint]:
    """The complete trials, and pruned ones at their last rung; trials without a measured cost are left out."""
    found = []
    for record in records:
        cost = getattr(record.facts, _RECORDED[by])
        if cost is None:
            continue
        if record.state == COMPLETE and record.psnr_db is not None:
            found.append(ParetoPoint(record, float(cost), record.psnr_db, 100.0))
        elif record.state == PRUNED and record.last_rung is not None:
            found.append(ParetoPoint(record, float(cost), record.last_rung.psnr_db, record.last_rung.percent))
    return found


def pareto_front(found: Sequence[ParetoPoint]) -> list[ParetoPoint]:
    """Those that no other beats in both, by rising cost; of equal ones the first."""
    in_order = sorted(found, key=lambda point: point.record.number)
    return upper_front(in_order, lambda point: (point.cost, point.psnr_db))


def write_pareto(name: str, records: Sequence[Record], by: Cost, target: Path, console: Console) -> None:
    """Print the trials of study `name` with the front first, and draw them. `UserError` if there are none."""
    found = pareto_points(records, by)
    if not found:
        why = "no finished trial yet" if not any(r.rungs for r in records) else f"recorded no {_LABELS[by]}"
        raise UserError(f"study {name!r} has {why}; `python -m search run --study {name}` goes on")
    if target.suffix.lower() != ".png":
        raise UserError(f"--to {target}: the drawing is a PNG; name a file that ends in .png")
    make_writable(target.parent, "--to")
    best = pareto_front(found)
    _show(found, best, by, console)
    _draw(target, name, found, best, by)
    console.print(f"written: {target}", markup=False, soft_wrap=True)


def _show(found: Sequence[ParetoPoint], best: Sequence[ParetoPoint], by: Cost, console: Console) -> None:
    others = sorted((p for p in found if p not in best), key=lambda point: -point.psnr_db)
    shown = [*best, *others[:MOST_OTHERS]]
    varying = varying_settings([point.record for point in found])
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("trial", _LABELS[by], "PSNR (dB)", "trained"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("settings", no_wrap=True, overflow="ellipsis")
    for point in shown:
        record = point.record
        settings = settings_line(record, varying)
        cells = (
            str(record.number),
            _cost_in_words(point.cost, by),
            f"{point.psnr_db:.2f}",
            "whole" if point.percent == 100 else f"{point.percent:.3g} %",
            f"{record.label}; {settings}" if record.label else settings,
        )
        table.add_row(*map(Text, cells), style="bold green" if point in best else "dim")
    console.print(f"{len(best)} of {len(found)} trials are on the front, the cheapest first", highlight=False)
    console.print(table)
    if len(found) > len(shown):
        console.print(f"and {len(found) - len(shown)} more", style="dim")
    if any(point.percent < 100 for point in shown):
        console.print(
            "not trained to the end: scored at a rung, on fewer images, and could still have risen",
            style="dim",
            soft_wrap=True,
        )


def _draw(path: Path, name: str, found: Sequence[ParetoPoint], best: Sequence[ParetoPoint], by: Cost) -> None:
    figure = Figure(figsize=(8, 5.2), dpi=130, layout="constrained")
    axes: Axes = figure.subplots()
    whole = [point for point in found if point.percent == 100]
    partly = [point for point in found if point.percent < 100]
    if partly:
        axes.plot(*_xy(partly), "o", color="0.6", fillstyle="none", label="at its last rung")
    if whole:
        axes.plot(*_xy(whole), "o", color="tab:blue", label="trained to the end")
    axes.step(*_xy(best), where="post", color="tab:green", linewidth=1.5, label="front", zorder=1)
    for point in best:
        text = str(point.record.number) + ("" if point.percent == 100 else f" ({point.percent:.3g} %)")
        axes.annotate(text, (point.cost, point.psnr_db), (4, 6), textcoords="offset points", fontsize=8)
    if min(point.cost for point in found) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
        if max(p.cost for p in found) > 10 * min(p.cost for p in found):
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: short_number(value)))
    floor = floor_without_outliers([point.psnr_db for point in found])
    if below := [point for point in found if point.psnr_db < floor]:
        top = max(point.psnr_db for point in found)
        axes.set_ylim(floor - 0.05 * (top - floor), top + 0.08 * (top - floor))
    axes.margins(x=0.12)
    axes.set_xlabel(_LABELS[by])
    axes.set_ylabel("PSNR (dB)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    note = f"; {len(below)} below the axis" if below else ""
    axes.set_title(f"{name}: {len(found)} trials{note}", fontsize=10)
    figure.savefig(path)


def _xy(found: Sequence[ParetoPoint]) -> tuple[list[float], list[float]]:
    return [point.cost for point in found], [point.psnr_db for point in found]


def _cost_in_words(cost: float, by: Cost) -> str:
    return in_thousands(round(cost)) if by == "parameters" else f"{cost:.3g}"
