"""Queueing failed trials again, and the reasons why some cannot be."""

from collections.abc import Iterable, Sequence

from search.database import FAILED, PRUNED, FrozenTrial, Study, enqueue_again, facts_of
from search.errors import UserError
from search.manage.status import state_of

# How the reasons begin that another attempt may cure, of trials that were pruned.
CURABLE = ("out of memory", "diverged")


def failed_trials(study: Study) -> list[int]:
    """The trials that failed and have not been tried again."""
    trials = study.get_trials(deepcopy=False)
    return [t.number for t in trials if state_of(t) == FAILED and not _later(trials, t.number)]


def retry_trials(study: Study, numbers: Iterable[int]) -> dict[int, int]:
    """Queue trials once more, with the same settings; the numbers of the new ones.

    None is queued if one of them cannot be: `UserError` says which, a line each.
    """
    trials, wanted = study.get_trials(deepcopy=False), list(dict.fromkeys(numbers))
    if refused := [why for number in wanted if (why := refusal(trials, number))]:
        raise UserError("\n".join(refused))
    return {number: enqueue_again(study, trials[number]) for number in wanted}


def refusal(trials: Sequence[FrozenTrial], number: int) -> str | None:
    """The reason why a trial cannot be tried again, or None."""
    if not 0 <= number < len(trials):
        there = f"there are 0 to {len(trials) - 1}" if trials else "there are none yet"
        return f"trial {number}: no such trial ({there})"
    trial = trials[number]
    state, ended = state_of(trial), facts_of(trial).ended
    if (later := _later(trials, number)) is not None:
        return f"trial {number}: has been tried again as trial {later}, which is {state_of(trials[later])}"
    if state == FAILED or (state == PRUNED and ended.startswith(CURABLE)):
        return None
    why = f" ({ended})" if state == PRUNED and ended else ""
    return f"trial {number}: is {state}{why}; what failed, ran out of memory or diverged can be tried again"


def _later(trials: Sequence[FrozenTrial], number: int) -> int | None:
    """The trial that tried this one again."""
    return next((t.number for t in trials if facts_of(t).retry_of == number), None)
