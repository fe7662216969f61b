"""Weight inheritance: a new trial begins from the weights of a smaller one of its study (arXiv 1703.01041)."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.files import whole_file
from models import is_wider_or_deeper
from search.database import FrozenTrial, Study, Trial, TrialFacts, TrialState, facts_of, record_facts
from search.errors import UserError
from search.trial import BEST_WEIGHTS, InitialConfig, TrialConfig
from search.worker.trained_trial import stored_config

COPY = "inherited.safetensors"


@dataclass(frozen=True)
class WeightInheritance:
    """Chooses the starting weights of the trials of a study."""

    wanted: bool
    """True if new trials inherit weights. A trial that has inherited keeps its starting weights in any case."""
    data: str
    """Fingerprint of the pairs: weights trained on other pairs may have seen validation images of these."""
    folder: Callable[[int], Path]
    """The folder of a trial, by its number."""
    say: Callable[[str], None]

    def starting_config(self, trial: Trial, config: TrialConfig) -> TrialConfig:
        """`config` that starts from the weights of the best trial with a smaller network, if there is one.

        The best trial is that with the highest score at any rung. Known recipes start from random weights, so that
        they remain a baseline. The choice is recorded with the trial and the weights are copied to its folder: a
        trial that is continued uses the same weights. If that copy is missing, the trial starts from random weights,
        and this is recorded.
        """
        copy = self.folder(trial.number).resolve() / COPY
        facts = facts_of(trial)
        known = facts.inherited
        if known is None and self.wanted and not facts.config:
            known = {} if facts.label else self._copy_of_donor(trial, config, copy)
            record_facts(trial, inherited=known)
            if known:
                self.say(f"trial {trial.number}: begins from the weights of trial {known['trials'][0]}")
        elif known and not _is_intact(copy, known["sha256"]):
            self.say(
                f"trial {trial.number}: the weights that it began from are gone, it begins from random ones"
            )
            known = {}
            record_facts(trial, inherited=known)
        if not known:
            return config
        initial = InitialConfig(file=copy, match="overlap", sha256=known["sha256"])
        return config.model_copy(update={"initial": initial})

    def _copy_of_donor(self, trial: Trial, config: TrialConfig, copy: Path) -> dict[str, Any]:
        for donor in _best_first(trial.study, config, self.data):
            try:
                content = (self.folder(donor.number) / BEST_WEIGHTS).read_bytes()
            except FileNotFoundError:
                continue  # deleted, or on another machine
            copy.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(copy) as partial:
                partial.write_bytes(content)
            before = facts_of(donor).inherited or {"trials": []}
            return {
                "trials": [donor.number, *before["trials"]],
                "psnr_db": _score(donor),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        return {}


def inheritance_sentence(facts: TrialFacts) -> str:
    """Sentence on the origin of a trial's starting weights; empty if they were random."""
    found = facts.inherited
    if not found:
        return ""
    first, *others = found["trials"]
    behind = f", which go back to trial {' and trial '.join(map(str, others))}" if others else ""
    return (
        f"It began from the weights of trial {first} ({found['psnr_db']:.2f} dB, a smaller network){behind}; "
        "steps and time are its own alone."
    )


def drop_inherited_weights(folder: Path) -> None:
    """Delete the copy of the starting weights of a trial that has ended."""
    (folder / COPY).unlink(missing_ok=True)


def _best_first(study: Study, config: TrialConfig, data: str) -> list[FrozenTrial]:
    """Complete or paused trials with a smaller network, the highest score first."""
    states = (TrialState.COMPLETE, TrialState.WAITING)
    found = [
        trial
        for trial in study.get_trials(deepcopy=False, states=states)
        if trial.intermediate_values and facts_of(trial).data == data and _is_smaller(trial, config)
    ]
    return sorted(found, key=lambda trial: (-_score(trial), trial.number))


def _is_smaller(trial: FrozenTrial, config: TrialConfig) -> bool:
    try:
        return is_wider_or_deeper(config.model, stored_config(trial).model)
    except UserError:  # made by another version
        return False


def _score(trial: FrozenTrial) -> float:
    """Score of the weights on disk, which are those of the best rung."""
    return max(trial.intermediate_values.values())


def _is_intact(copy: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(copy.read_bytes()).hexdigest() == sha256
    except FileNotFoundError:
        return False
