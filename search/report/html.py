"""The facts of a study as one HTML file that needs nothing else: no network, no other files."""

import base64
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from search.analysis import (
    COLUMNS,
    END,
    FEWEST_RANKED,
    SHUFFLES,
    SIGNIFICANCE_RULE,
    ScoredCrop,
    end_in_words,
    informative_columns,
    sort_trials,
    trial_cells,
    varying_settings,
)
from search.database import COMPLETE, Record
from search.report.facts import Group, ReportFacts
from search.report.plots import cost_plots, curve_plots
from search.text import clock, in_thousands

HERE = Path(__file__).parent
LARGEST_PNG = 200_000  # bytes; what would be larger is shown as JPEG
JPEG_QUALITY = 92
MOST_ROWS = 200
MOST_BARS = 12


def render_report(facts: ReportFacts) -> str:
    """The page. Names and texts of the study are escaped, wherever they stand."""
    script = (HERE / "page.js").read_text("utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template.filters |= {"keep_units_together": keep_units_together, "break_after_dots": break_after_dots}
    crops = [_crop_values(sample) for sample in facts.validation.samples] if facts.validation else []
    return template.from_string((HERE / "page.html").read_text("utf-8")).render(
        facts=facts,
        style=Markup((HERE / "page.css").read_text("utf-8")),
        script=Markup(script),
        # The browser runs this script and no other, whatever names a study has.
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        tiles=list(_tiles(facts)),
        crops=crops,
        lossy=any("image/jpeg" in str(crop.values()) for crop in crops),
        jpeg_quality=JPEG_QUALITY,
        means=_means(facts),
        **_recipes(facts),
        compared_names=[_recipe_name(facts, trial) for trial in _recipe_trials(facts)],
        **curve_plots(facts),
        costs=list(cost_plots(facts)),
        mattered_rule=SIGNIFICANCE_RULE,
        **_importance(facts),
        contrasts=[
            {
                "what": contrast.what,
                "by": "at the end" if contrast.percent == END else f"at {contrast.percent} % of the steps",
                "rows": [_group_row(group) for group in contrast.groups],
            }
            for contrast in facts.contrasts
        ],
        **_time(facts),
        **_rows(facts),
    )


def keep_units_together(text: str) -> str:
    """A number and its unit stay on one line."""
    return text.replace(" dB", "\u00a0dB").replace(" %", "\u00a0%")


def break_after_dots(name: str) -> Markup:
    """A dotted path may be broken behind its dots."""
    return Markup(".<wbr>").join(name.split("."))


def _tiles(facts: ReportFacts) -> Iterable[dict[str, str]]:
    best, validation = facts.best, facts.validation
    if best is None or best.psnr_db is None:
        return
    if validation:
        yield _tile(
            "PSNR",
            f"{validation.psnr_db.mean:.2f} dB",
            _between(validation.psnr_db.low, validation.psnr_db.high),
        )
        gain = validation.gains[0].gain_db
        yield _tile("over the input", f"{gain.mean:+.2f} dB", _between(gain.low, gain.high, sign=True))
    else:
        yield _tile("PSNR", f"{best.psnr_db:.2f} dB", "as stored with the trial")
    if best.parameters:
        yield _tile(
            "parameters",
            in_thousands(best.parameters),
            f"{best.gmacs_at_256 or 0:.2f} GMACs at 256 x 256",
        )
    yield _tile(
        "trials",
        str(len(facts.trials)),
        f"{sum(t.state == COMPLETE for t in facts.trials)} complete; {clock(sum(s.total for s in facts.spent))} in all",
    )


def _tile(what: str, value: str, under: str) -> dict[str, str]:
    return {"what": what, "value": value, "under": under}


def _between(low: float, high: float, sign: bool = False) -> str:
    if low != low:
        return "one image: no interval"
    return f"95 %: {low:+.2f} to {high:+.2f}" if sign else f"95 %: {low:.2f} to {high:.2f}"


def _crop_values(sample: ScoredCrop) -> dict[str, Any]:
    height, width = sample.clean.shape[:2]
    return {
        "name": sample.name,
        "rank": sample.rank,
        "change": f"{sample.before_db:.2f} to {sample.after_db:.2f} dB ({sample.after_db - sample.before_db:+.2f})",
        "width": width,
        "height": height,
        "degraded": data_uri(sample.degraded),
        "restored": data_uri(sample.restored),
        "clean": data_uri(sample.clean),
    }


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """(height, width, channels) as a PNG inside a URI, or as a JPEG if that would be large."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    buffer, kind = io.BytesIO(), "png"
    image.save(buffer, "PNG", optimize=True)
    if buffer.tell() > LARGEST_PNG:
        buffer, kind = io.BytesIO(), "jpeg"
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _means(facts: ReportFacts) -> list[dict[str, Any]]:
    validation = facts.validation
    if validation is None:
        return []
    given, *competitors = validation.gains
    rows: list[tuple[str, list[str], bool]] = [
        (
            "restored",
            [f"{validation.psnr_db.mean:.2f}", f"{validation.ssim:.4f}", f"{255 * validation.mae:.2f}"],
            True,
        ),
        (
            "degraded",
            [f"{given.psnr_db:.2f}", f"{validation.input_ssim:.4f}", f"{255 * validation.input_mae:.2f}"],
            False,
        ),
        *((competitor.over, [f"{competitor.psnr_db:.2f}", "", ""], False) for competitor in competitors),
    ]
    return [{"name": name, "cells": cells, "winner": winner} for name, cells, winner in rows]


def _recipe_trials(facts: ReportFacts) -> list[Record]:
    return [facts.best, *facts.known] if facts.best else []


def _recipe_name(facts: ReportFacts, trial: Record) -> str:
    if facts.best is not None and trial.number == facts.best.number:
        return f"the winner, trial {trial.number}"
    return trial.label or f"trial {trial.number}"


def _recipes(facts: ReportFacts) -> dict[str, Any]:
    """The winner and the known recipes, a row each."""
    if not facts.known:
        return {"recipes": [], "recipe_names": []}
    lines = [trial_cells(trial) for trial in _recipe_trials(facts)]
    columns = informative_columns(lines)[1:-2]
    return {
        "recipe_names": [COLUMNS[n] for n in columns],
        "recipes": [
            {
                "name": _recipe_name(facts, trial),
                "winner": facts.best is not None and trial.number == facts.best.number,
                "cells": [line[n] for n in columns],
                "end": end_in_words(trial),
            }
            for trial, line in zip(_recipe_trials(facts), lines, strict=True)
        ],
    }


def _importance(facts: ReportFacts) -> dict[str, Any]:
    found = facts.importance
    beyond = {name: share > found.chance[name] for name, share in found.shares.items()}
    shown = [name for name, share in found.shares.items() if share >= 0.01]
    shown = sorted(shown, key=lambda name: not beyond[name])[:MOST_BARS]
    top = max(found.shares.values(), default=1.0) or 1.0
    return {
        "importance": [
            {
                "name": name,
                "width": round(100 * found.shares[name] / top, 1),
                "chance": round(100 * found.chance[name] / top, 1),
                "beyond": beyond[name],
                "value": f"{100 * found.shares[name]:.0f} %",
            }
            for name in shown
        ],
        "importance_by": "the final score"
        if found.percent == END
        else f"the score at {found.percent} % of the steps",
        "unimportant": len(found.shares) - len(shown),
        "shuffles": SHUFFLES + 1,
        "fewest": FEWEST_RANKED,
    }


def _group_row(group: Group) -> list[str]:
    spread = "-" if group.spread is None else f"{group.spread:.2f}"
    return [group.value, f"{group.mean:.2f}", spread, str(len(group.scores))]


def _time(facts: ReportFacts) -> dict[str, Any]:
    total = sum(row.total for row in facts.spent) or 1.0
    training = sum(row.training for row in facts.spent)
    return {
        "spent": [
            {
                "what": f"{row.what} ({row.trials})",
                "training": round(100 * row.training / total, 1),
                "validation": round(100 * row.validation / total, 1),
                "value": f"{clock(row.total)}, {100 * row.total / total:.0f} %",
            }
            for row in facts.spent
        ],
        "time_note": f"{clock(total)} in all. Full colour: steps of training, {100 * training / total:.0f} %; "
        "pale: validation, pictures and starting.",
    }


def _rows(facts: ReportFacts) -> dict[str, Any]:
    varying = varying_settings(facts.trials)
    shown = sort_trials(facts.trials, "psnr")[:MOST_ROWS]
    lines = [trial_cells(trial, varying) for trial in shown]
    columns = informative_columns(lines)
    return {
        "row_names": [COLUMNS[n] or "trial" for n in columns],
        "rows": [
            {
                "winner": facts.best is not None and trial.number == facts.best.number,
                "cells": [line[n] for n in columns],
            }
            for trial, line in zip(shown, lines, strict=True)
        ],
    }
