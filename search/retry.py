"""Which trials may be tried again, and why others may not."""

from collections.abc import Iterable, Sequence

from search import records, upkeep
from search.errors import UserError
from search.status import state_of
from search.storage import FrozenTrial, Study
from search.trial_facts import facts_of

# How the reasons begin that another attempt may cure, of trials that were pruned.
CURABLE = ("out of memory", "diverged")


def failed(study: Study) -> list[int]:
    """The trials that failed and have not been tried again."""
    trials = study.get_trials(deepcopy=False)
    return [t.number for t in trials if state_of(t) == records.FAILED and not _later(trials, t.number)]


def retry(study: Study, numbers: Iterable[int]) -> dict[int, int]:
    """Queue trials once more, with the same settings; the numbers of the new ones.

    None is queued if one of them cannot be: `UserError` says which, a line each.
    """
    trials, wanted = study.get_trials(deepcopy=False), list(dict.fromkeys(numbers))
    if refused := [why for number in wanted if (why := refusal(trials, number))]:
        raise UserError("\n".join(refused))
    return {number: upkeep.try_again(study, trials[number]) for number in wanted}


def refusal(trials: Sequence[FrozenTrial], number: int) -> str | None:
    """Why a trial cannot be tried again, or None."""
    if not 0 <= number < len(trials):
        there = f"there are 0 to {len(trials) - 1}" if trials else "there are none yet"
        return f"trial {number}: no such trial ({there})"
    trial = trials[number]
    state, ended = state_of(trial), facts_of(trial).ended
    if (later := _later(trials, number)) is not None:
        return f"trial {number}: has been tried again as trial {later}, which is {state_of(trials[later])}"
    if state == records.FAILED or (state == records.PRUNED and ended.startswith(CURABLE)):
        return None
    why = f" ({ended})" if state == records.PRUNED and ended else ""
    return f"trial {number}: is {state}{why}; what failed, ran out of memory or diverged can be tried again"


def _later(trials: Sequence[FrozenTrial], number: int) -> int | None:
    """The trial that tried this one again."""
    return next((t.number for t in trials if facts_of(t).retry_of == number), None)
