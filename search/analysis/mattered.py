"""Settings that mattered in a study: a sentence for each question, with its evidence or the reason for having none."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.analysis.importance import END, Importance, setting_importance
from search.analysis.questions import QUESTIONS, Question, importance_share, trial_groups
from search.analysis.ranking_table import PERCENT
from search.database import COMPLETE, FAILED, Record, Study, read_records
from search.statistics import (
    FEWEST_ON_A_SIDE,
    FEWEST_TRIALS,
    SIGNIFICANCE,
    Effect,
    SettingPair,
    estimate_effect,
    holm_adjusted,
    pool_rare_groups,
    strongest_pair,
)

NEGLIGIBLE_DB = 0.1
SIGNIFICANCE_RULE = (
    "The effect is that of the best group over the rest, other settings being equal (an additive model of the "
    f"scores; trials far below the others count as that). It counts where at least {FEWEST_TRIALS} trials were "
    f"scored at one rung and {FEWEST_ON_A_SIDE} on each side, its {PERCENT} interval (trials drawn anew) does not "
    f"hold 0, and shuffled scores do as well less than once in {round(1 / SIGNIFICANCE)} studies, all questions "
    "taken together. Trials were chosen by a search, not at random."
)


@dataclass(frozen=True)
class Answer:
    """The answer of a study to one question."""

    question: Question
    conclusion: str
    """yes, hardly, or "not enough evidence"."""
    sentence: str
    trials: int
    percent: int
    """The rung of the scores; 100: the end."""
    effect: Effect | None
    chance: float
    """Of the effect, all questions taken together."""
    importance: float
    """PED-ANOVA, as a share; nan where nothing was open."""


@dataclass(frozen=True)
class MatteredFindings:
    """All answers, and the clearest interaction of two settings."""

    answers: tuple[Answer, ...]
    pair: SettingPair | None
    together: str

    @property
    def sentences(self) -> list[str]:
        return [*(answer.sentence for answer in self.answers), self.together]


def find_what_mattered(study: Study, found: Importance | None = None) -> MatteredFindings:
    """Answers from the recorded trials; nothing is trained. `found`: the importances, where they are known."""
    shares = (found or setting_importance(study)).shares
    trials = [trial for trial in read_records(study) if trial.config and trial.steps]
    at: dict[str, tuple[int, list[tuple[Record, float]]]] = {}
    effects: dict[str, Effect | None] = {}
    for question in QUESTIONS:
        percent, scored = comparable(trials, question)
        at[question.name] = percent, scored
        settings = _settings([trial for trial, _ in scored], question)
        effects[question.name] = (
            estimate_effect([score for _, score in scored], settings, question.name)
            if question.name in settings
            else None
        )
    there = [name for name, one in effects.items() if one is not None]
    chances = dict(
        zip(there, holm_adjusted([e.chance for e in effects.values() if e is not None]), strict=True)
    )
    answers = []
    for question in QUESTIONS:
        one, chance = effects[question.name], chances.get(question.name, 1.0)
        percent, scored = at[question.name]
        conclusion, sentence = _conclude(question, one, chance, percent, [t for t, _ in scored])
        answers.append(
            Answer(
                question,
                conclusion,
                sentence,
                len(scored),
                percent,
                one,
                chance,
                importance_share(question, shares),
            )
        )
    pair, together = _interaction_sentence(trials)
    return MatteredFindings(tuple(answers), pair, together)


def comparable(trials: Sequence[Record], question: Question | None) -> tuple[int, list[tuple[Record, float]]]:
    """The highest rung that enough trials have reached, in percent, and their scores there; else the fullest rung.

    With a question, only trials that it applies to count, and only rungs late enough in a training.
    """
    at: dict[int, list[tuple[Record, float]]] = {}
    latest = max((question.since(trial.config) for trial in trials), default=0.0) if question else 0.0
    for trial in trials:
        if trial.state == FAILED or (question and question.answer(trial.config) is None):
            continue
        for percent, score in trial.reported.items():
            if percent < END:
                at.setdefault(percent, []).append((trial, score))
        # What had the time of the last stretch was trained longer than the others.
        if trial.state == COMPLETE and trial.psnr_db is not None and not trial.had_last_stretch:
            at.setdefault(END, []).append((trial, trial.psnr_db))
    rungs = sorted((rung for rung in at if rung > 100 * latest), reverse=True)
    fullest = max(rungs, key=lambda rung: (len(at[rung]), rung), default=END)
    percent = next((rung for rung in rungs if len(at[rung]) >= FEWEST_TRIALS), fullest)
    return percent, at.get(percent, [])


def show_what_mattered(findings: MatteredFindings, console: Console) -> None:
    """A table for each question, then the sentences."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("question", "effect (dB)", PERCENT, "trials", "at", "chance", "PED-ANOVA", ""):
        table.add_column(name, justify="left" if name in ("question", "") else "right")
    for answer in findings.answers:
        one, share = answer.effect, answer.importance
        table.add_row(
            answer.question.name,
            f"{one.gain_db:+.2f}" if one else "-",
            f"{one.low:+.2f} to {one.high:+.2f}" if one else "-",
            f"{one.trials} / {one.others}" if one else str(answer.trials),
            f"{answer.percent} %" if answer.trials else "-",
            f"{answer.chance:.3f}" if one else "-",
            f"{100 * share:.0f} %" if share == share else "-",
            Text(answer.conclusion, style="bold green" if answer.conclusion == "yes" else "dim"),
        )
    console.print(table)
    console.print()
    for sentence in findings.sentences:
        console.print(f"- {sentence}", markup=False, soft_wrap=True)
    console.print(f"\n{SIGNIFICANCE_RULE}", markup=False, style="dim", soft_wrap=True)


def _settings(trials: Sequence[Record], question: Question | None) -> dict[str, list[str]]:
    """The group of each trial for every question that divides them; "none" where it does not apply."""
    found = {q.name: [group or "none" for group in trial_groups(q, trials)] for q in QUESTIONS}
    found = {name: groups for name, groups in found.items() if len(set(pool_rare_groups(groups))) > 1}
    first = [question.name] if question and question.name in found else []
    return {name: found[name] for name in [*first, *(n for n in found if n not in first)]}


def _conclude(
    question: Question, one: Effect | None, chance: float, percent: int, trials: Sequence[Record]
) -> tuple[str, str]:
    """The conclusion (yes, hardly, not enough evidence) and the sentence with its evidence."""
    unsure = "not enough evidence"
    if one is None:
        return unsure, f"{question.asked} Not enough evidence: {_too_few_trials(question, percent, trials)}."
    rest = one.rest[0] if len(one.rest) == 1 else "the others"
    text = (
        f"{_group_in_words(question, one.best)} over {rest}: {one.gain_db:+.2f} dB "
        f"({PERCENT}: {one.low:+.2f} to {one.high:+.2f}; "
        f"{one.trials} trials against {one.others}, {_rung_in_words(percent)})"
    )
    if one.low > 0 and chance < SIGNIFICANCE:
        return "yes", f"{question.asked} Yes: {text}."
    if one.low > -NEGLIGIBLE_DB and one.high < NEGLIGIBLE_DB:
        return "hardly", f"{question.asked} Hardly, by less than {NEGLIGIBLE_DB} dB: {text}."
    why = (
        "the interval holds 0"
        if one.low <= 0
        else f"chance does as well in {100 * chance:.0f} % of such studies"
    )
    return unsure, f"{question.asked} Not enough evidence: {text}: {why}."


def _group_in_words(question: Question, group: str) -> str:
    """A group in words; a bare number gets the name of the question."""
    return f"{question.name} {group}" if group[:1].isdigit() else group


def _too_few_trials(question: Question, percent: int, trials: Sequence[Record]) -> str:
    if not trials:
        return "no trials were scored late enough in a training to tell"
    if len(trials) < FEWEST_TRIALS:
        found = f"{len(trials)} trial{'s' * (len(trials) > 1)} can be compared {_rung_in_words(percent)}"
        return f"{found}, {FEWEST_TRIALS} are needed"
    groups = [group for group in trial_groups(question, trials) if group is not None]
    if len(set(groups)) == 1:
        return f"all {len(trials)} trials have the same ({groups[0]})"
    counts = ", ".join(f"{name}: {groups.count(name)}" for name in sorted(set(groups)))
    return f"fewer than {FEWEST_ON_A_SIDE} trials on a side ({counts}), {_rung_in_words(percent)}"


def _rung_in_words(percent: int) -> str:
    return "at the end" if percent == END else f"at {percent} % of a training"


def _interaction_sentence(trials: Sequence[Record]) -> tuple[SettingPair | None, str]:
    asked = "Did settings depend on each other?"
    percent, scored = comparable(trials, None)
    late = [
        q for q in QUESTIONS if all(percent > 100 * q.since(trial.config) for trial, _ in scored)
    ]  # what cannot show yet cannot interact either
    settings = _settings([trial for trial, _ in scored], None)
    settings = {q.name: settings[q.name] for q in late if q.name in settings}
    pair = strongest_pair([score for _, score in scored], settings) if len(settings) > 1 else None
    if pair is None:
        return None, f"{asked} Not enough evidence: too few trials ({len(scored)}) for any two settings."
    what = f"{pair.first} {pair.groups[0]} with {pair.second} {pair.groups[1]}"
    better = "better" if pair.excess_db > 0 else "worse"
    text = (
        f"{what} is {abs(pair.excess_db):.2f} dB {better} than their single effects add up to "
        f"({pair.trials} trials, {_rung_in_words(percent)})"
    )
    if pair.chance < SIGNIFICANCE:
        return (
            pair,
            f"{asked} Yes: {text}; shuffled scores show as much in only {100 * pair.chance:.1f} %.",
        )
    return pair, (
        f"{asked} No pair beyond chance. The strongest: {text}; shuffled scores show as much "
        f"in {100 * pair.chance:.0f} %."
    )
