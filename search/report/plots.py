"""The charts of a report: learning curves, and what quality costs."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from search.analysis import end_in_words, floor_without_outliers, upper_front
from search.database import COMPLETE, Record
from search.report.facts import ReportFacts
from search.report.svg import MOST_CURVES, Dot, Line, draw_chart, make_axis, percent_axis
from search.text import clock


def curve_plots(facts: ReportFacts) -> dict[str, Any]:
    """The charts of the search and of the winner, and what stands below them; empty where nothing was trained."""
    shown: dict[str, Any] = {"curves": "", "long_curve": "", "curve_key": [], "long_note": "", "cut": ""}
    searched = [trial for trial in facts.trials if trial.reported and trial.steps]
    if searched:
        kinds = {trial.number: _kind(facts, trial) for trial in searched}
        lines = [
            Line(list(trial.reported.items()), f"{trial.name}: {end_in_words(trial)}", kinds[trial.number])
            for trial in searched[-MOST_CURVES:]
        ]
        scores = [y for line in lines for _, y in line.points]
        low = floor_without_outliers(scores)
        shown["curves"] = draw_chart(
            percent_axis("share of a whole training (%)", min(x for line in lines for x, _ in line.points)),
            make_axis("PSNR (dB)", [y for y in scores if y >= low]),
            [replace(line, points=[point for point in line.points if point[1] >= low]) for line in lines],
            alt=f"learning curves of {len(lines)} trials",
        )
        shown["cut"] = _cut_note(low, min(scores))
        named = {"best": "winner", "done": "complete", "faint": "stopped early"}
        shown["curve_key"] = [(kind, name) for kind, name in named.items() if kind in kinds.values()]
    long = facts.best if facts.best and facts.best.had_last_stretch and len(facts.best.rungs) > 1 else None
    if long is not None:
        points = [(rung.percent, rung.psnr_db) for rung in long.rungs]
        shown["long_curve"] = draw_chart(
            percent_axis("share of its steps (%)", points[0][0]),
            make_axis("PSNR (dB)", [y for _, y in points]),
            [Line(points, long.name, "best")],
            alt="learning curve of the winner",
        )
        shown["long_note"] = f"{long.name}, {long.steps_done:,} steps in {clock(long.seconds)}"
    return shown


def _kind(facts: ReportFacts, trial: Record) -> str:
    if facts.best is not None and trial.number == facts.best.number:
        return "best"
    return "done" if trial.state == COMPLETE else "faint"


def _cut_note(low: float, least: float) -> str:
    return f" Scores below {low:.1f} dB are left out, down to {least:.1f}." if least < low else ""


def cost_plots(facts: ReportFacts) -> Iterable[Markup]:
    """Quality against each measure of cost in which trials differ."""
    measures: dict[str, Callable[[Record], float | None]] = {
        "parameters": lambda trial: trial.parameters,
        "GMACs for 256 x 256 pixels": lambda trial: trial.gmacs_at_256,
        "seconds to score the validation images": lambda trial: None if trial.steps else trial.seconds,
    }
    for name, cost in measures.items():
        dots = []
        for trial in facts.trials:
            rung = trial.last_rung
            score = trial.psnr_db if trial.psnr_db is not None else rung.psnr_db if rung else None
            spent = cost(trial)
            if not spent or score is None:
                continue
            kind = _kind(facts, trial)
            title = f"{trial.name}: {score:.2f} dB, {spent:,.4g} {name}; {end_in_words(trial)}"
            dots.append(Dot(spent, score, title, kind, trial.name if kind == "best" else ""))
        if len({dot.x for dot in dots}) > 1:
            low = floor_without_outliers([dot.y for dot in dots])
            dots = [dot for dot in dots if dot.y >= low]
            best = upper_front([(dot.x, dot.y) for dot in dots if dot.kind != "faint"], lambda point: point)
            yield draw_chart(
                make_axis(name, [dot.x for dot in dots], log=True),
                make_axis("PSNR (dB)", [dot.y for dot in dots]),
                dots=dots,
                stairs=best,
                alt=f"PSNR against {name} of {len(dots)} trials",
            )
