"""Schema of the facts that the database holds about a study, apart from its trials."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Any

from search.database.trial_facts import Fact, HasAttributes, dumped

FORMAT = 1
"""How facts are written. It grows when readers of before would misunderstand what is written now."""
CONFIRMED = "confirmed."
"""Prefix of attributes that hold a repeat as JSON text; then follow the trial, a dot and the seed."""


@dataclass(frozen=True)
class StudyFacts:
    """Facts recorded with one study. `stored` are its attributes; those that are not named here are ignored."""

    stored: Mapping[str, Any] = field(default_factory=dict)

    # What is searched.
    recipe = Fact[Mapping[str, Any] | None](None, json.loads, json.dumps)
    """The recipe with its open settings. Stored as JSON text; None in a study of another program."""
    spec = Fact[str | None](None, dump=methodcaller("model_dump_json"))
    """The current `StudySpec` as JSON text, for workers that join. None before the search is set up."""
    format = Fact[int](1)
    """`FORMAT` of the version that last searched it."""
    folder = Fact[str | None](None)
    """Its folder below that of all runs. None in studies from before it was recorded: then it has their name."""
    data = Fact[str | None](None)
    """Fingerprint of the pairs."""
    full_teramacs = Fact[float | None](None)
    """The length of a whole training, in 10^12 multiply-adds, where the recipe leaves it open."""
    rungs = Fact[int | None](None)
    """Number of rungs that the time allows. Written before `full_teramacs`."""

    # Its runs.
    commands = Fact[Sequence[str]](())
    """Command lines of its runs."""
    latest_run = Fact[Mapping[str, Any]]({}, key="sitting")
    """The current or latest `run`: `started` (seconds since 1970), `timeout` (seconds), `workers`, `input_psnr_db`, and
    its process as `owner` (as of a trial; None once it has ended)."""
    stop = Fact[Any](None)
    """The latest request that all its workers stop; a new value is a new request."""

    # Warm start, and results of the analysis after the search.
    warm_start = Fact[Sequence[str]](())
    """Names of the earlier studies that it was warm-started from."""
    earlier_trials = Fact[Sequence[Mapping[str, Any]]](())
    """Trials of earlier studies for the sampler: `params`, `distributions`, `scores`, `value`."""
    one_change = Fact[Mapping[str, Any] | None](None, json.loads, json.dumps)
    """Results of training the winner again with one thing changed at a time. Stored as JSON text."""


def study_facts_of(study: HasAttributes) -> StudyFacts:
    """The facts of a study."""
    return StudyFacts(study.user_attrs)


def record_study(study: Any, **facts: Any) -> None:
    """Store facts about a study, one after another in this order."""
    for name, value in dumped(StudyFacts, facts).items():
        study.set_user_attr(name, value)
