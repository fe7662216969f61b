"""Additions to the dashboard's own charts: a note for each trial, one for the study, and further plots."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna_dashboard import get_note, save_note, save_plotly_graph_object
from optuna_dashboard.artifact import get_artifact_path

from search.analysis import (
    conclusion_sentences,
    end_in_words,
    headline,
    markdown_table,
    settings_line,
    sort_trials,
    varying_settings,
)
from search.database import (
    COMPLETE,
    FINISHED,
    Record,
    Study,
    best_record,
    read_records,
    system_attributes,
    trial_handle,
)
from search.text import clock, in_thousands, plain_markdown, printable
from search.worker import inheritance_sentence, repeat_sentences

LEADERS = 10
MOST_POINTS = 500  # plots are read again at every poll of the page
SIGNATURE = "*Written by Restune, and written anew as trials end. Your own text in its place stays.*"
_NOTED = "dashboard:{}:note_ver"  # attribute of a study whose trial has a note


@dataclass(frozen=True)
class _Figure:
    """The part of a Plotly figure that optuna-dashboard stores."""

    content: dict[str, Any]

    def to_json(self) -> str:
        return json.dumps(self.content)


def refresh_notes(study: Study) -> None:
    """Bring notes and plots up to the trials that have ended since. Notes that a person wrote are left alone."""
    found = read_records(study)
    noted = system_attributes(study)
    for trial in found:
        if trial.state in FINISHED and _NOTED.format(trial.trial_id) not in noted:
            ended = trial_handle(study, trial.trial_id)
            pictures = [get_artifact_path(ended, picture) for picture in trial.pictures]
            save_note(ended, trial_note(trial, pictures))
    text, before = study_note(found, best_record(found), repeat_sentences(study)), get_note(study)
    if before != text and (not before or before.endswith(SIGNATURE)):
        save_note(study, text)
        for name, figure in (("quality-and-cost", _costs(found)), ("training-at-full-length", _long(found))):
            if figure is not None:
                save_plotly_graph_object(study, _Figure(figure), graph_object_id=name)


def trial_note(trial: Record, pictures: Sequence[str]) -> str:
    """Markdown: how it ended, and its strip of pictures."""
    score = f"**{trial.psnr_db:.2f} dB**, " if trial.psnr_db is not None else ""
    label = f"{plain_markdown(trial.label)}: " if trial.label else ""
    length = (
        f" {trial.steps_done:,} of {trial.steps:,} steps in {clock(trial.seconds)}." if trial.steps else ""
    )
    lines = [f"{label}{score}{plain_markdown(end_in_words(trial))}.{length}"]
    lines += filter(None, [inheritance_sentence(trial.facts)])
    lines += [f"Rescued: {plain_markdown(note)}" for note in trial.notes]
    lines += [f"![degraded, restored, clean, error]({picture})" for picture in pictures]
    return "\n\n".join(lines)


def study_note(found: Sequence[Record], best: Record | None, confirmed: Sequence[str] = ()) -> str:
    """Markdown: the winner by the rules of this program, and the trials behind it."""
    said = [plain_markdown(text) for text in [*conclusion_sentences(found, best, None, ""), *confirmed]]
    sections = [f"## {plain_markdown(headline(best, None))}", "\n".join(f"- {text}" for text in said)]
    leaders = [t for t in sort_trials(found, "psnr") if t.state == COMPLETE][:LEADERS]
    if leaders:
        varying = varying_settings(found)
        rows = [
            [
                str(trial.number),
                f"{trial.psnr_db:.2f}",
                in_thousands(trial.parameters),
                clock(trial.seconds),
                plain_markdown(trial.label or ""),
                plain_markdown(settings_line(trial, varying)),
            ]
            for trial in leaders
        ]
        sections.append(
            markdown_table(["trial", "PSNR (dB)", "parameters", "time", "recipe", "settings"], rows)
        )
    return "\n\n".join([*sections, SIGNATURE])


def _costs(found: Sequence[Record]) -> dict[str, Any] | None:
    """Score against multiply-adds, as Plotly draws it."""
    traces = []
    for name, those in {
        "complete": [t for t in found if t.psnr_db is not None],
        "stopped early, at the last rung": [t for t in found if t.psnr_db is None and t.rungs],
    }.items():
        shown = [trial for trial in those if trial.gmacs_at_256][-MOST_POINTS:]
        if shown:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "x": [trial.gmacs_at_256 for trial in shown],
                    "y": [
                        round(t.psnr_db if t.psnr_db is not None else t.rungs[-1].psnr_db, 3) for t in shown
                    ],
                    "text": [html.escape(printable(trial.name)) for trial in shown],
                }
            )
    if not traces:
        return None
    x = {"title": {"text": "GMACs for 256 x 256 pixels"}, "type": "log"}
    return _figure("Quality against cost", traces, x)


def _long(found: Sequence[Record]) -> dict[str, Any] | None:
    """The learning curves of trainings at full length, by their own steps."""
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": html.escape(printable(trial.name)),
            "x": [rung.percent for rung in trial.rungs],
            "y": [round(rung.psnr_db, 3) for rung in trial.rungs],
        }
        for trial in found
        if trial.had_last_stretch and trial.rungs
    ]
    x = {"title": {"text": "share of its steps (%)"}}
    return _figure("Training at full length", traces, x) if traces else None


def _figure(title: str, traces: list[dict[str, Any]], x: dict[str, Any]) -> dict[str, Any]:
    layout = {
        "title": {"text": title},
        "xaxis": x,
        "yaxis": {"title": {"text": "PSNR (dB)"}},
        "legend": {"orientation": "h", "y": -0.25},
    }
    return {"data": traces, "layout": layout}
