"""The one schema of what the database holds about a study, beside its trials."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Any

from search.database.trial_facts import Fact, HasAttributes, dumped

FORMAT = 1
"""How facts are written. It grows when readers of before would misunderstand what is written now."""
CONFIRMED = "confirmed."
"""How the names of repeated finalists begin, an attribute each, as JSON text: then the trial, a dot and the seed."""


@dataclass(frozen=True)
class StudyFacts:
    """What is recorded with one study. `stored` are its attributes; those that are not named here are ignored."""

    stored: Mapping[str, Any] = field(default_factory=dict)

    # What is searched.
    recipe = Fact[Mapping[str, Any] | None](None, json.loads, json.dumps)
    """The recipe with its open leaves. Stored as JSON text; None in a study of another program."""
    spec = Fact[str | None](None, dump=methodcaller("model_dump_json"))
    """The JSON text of the `StudySpec` as it is searched now, for workers that join. None before it is opened."""
    format = Fact[int](1)
    """`FORMAT` of the version that last searched it."""
    folder = Fact[str | None](None)
    """Its folder below that of all runs. None in studies from before it was recorded: then it has their name."""
    data = Fact[str | None](None)
    """Fingerprint of the pairs."""
    full_teramacs = Fact[float | None](None)
    """The length of a whole training, in 10^12 multiply-adds, where the recipe leaves it open."""
    rungs = Fact[int | None](None)
    """How many rungs there was time for. Written before `full_teramacs`."""

    # Who works on it.
    commands = Fact[Sequence[str]](())
    """What was typed to work on it."""
    sitting = Fact[Mapping[str, Any]]({})
    """The `run` that works on it, or did last: `started` (seconds since 1970), `timeout` (seconds), `workers`,
    `input_psnr_db`, and its `owner` (as of a trial; None once it has ended)."""
    stop = Fact[Any](None)
    """The latest wish that all its workers stop; another value is another wish."""

    # What it has learnt from elsewhere, and found out at its end.
    warm_start = Fact[Sequence[str]](())
    """Names of the studies that it has carried on from."""
    earlier_trials = Fact[Sequence[Mapping[str, Any]]](())
    """Trials of other studies that samplers are shown, too: `params`, `distributions`, `scores`, `value`."""
    one_change = Fact[Mapping[str, Any] | None](None, json.loads, json.dumps)
    """The winner trained again with one thing changed at a time. Stored as JSON text."""


def study_facts_of(study: HasAttributes) -> StudyFacts:
    """What the database holds about a study."""
    return StudyFacts(study.user_attrs)


def record_study(study: Any, **facts: Any) -> None:
    """Store facts about a study, one after another in this order."""
    for name, value in dumped(StudyFacts, facts).items():
        study.set_user_attr(name, value)
