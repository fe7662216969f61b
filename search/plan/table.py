"""A plan as a value, as JSON, and as tables for people."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.scheduler import MIN_STEPS_TO_COMPARE, TOP
from search.text import clock, gigabytes, in_thousands

MAX_RISK = 0.1  # largest allowed probability that the budget is too small


@dataclass(frozen=True)
class Size:
    """A measured recipe; `steps` and `seconds` up to each rung, by its percent; 100 is the whole training."""

    recipe: str
    parameters: int
    gmacs_at_256: float
    seconds_per_step: float
    memory_mb: float
    seconds_per_evaluation: float
    """Time of a score at a rung."""
    steps: Mapping[int, int]
    seconds: Mapping[int, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Range90:
    """The median, and the limits between which nine of ten simulated searches lie."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class ExpectedOutcome:
    """Outcome of many simulated searches. `reached` is by rung in percent; 100 is trained to the end."""

    begun: Range90
    reached: Mapping[int, Range90]
    seconds: Range90
    winner_steps: Range90
    too_small: float
    """Share of simulations in which fewer trials reach the first rung than are compared there."""
    lowest_steps: int
    """Steps of a median model at the first rung."""

    @property
    def enough(self) -> bool:
        """True if a search of this length can tell recipes apart."""
        return self.too_small <= MAX_RISK and self.lowest_steps >= MIN_STEPS_TO_COMPARE


@dataclass(frozen=True)
class Plan:
    """The prediction for a search."""

    study: str
    data: str
    device: str
    """Device of a worker, in words."""
    workers: int
    budget_seconds: float
    search_seconds: float
    repeats_seconds: float
    """Time for training the finalists again."""
    recipes_measured: int
    room_mb: float
    sizes: Mapping[str, Size]
    bought: ExpectedOutcome
    """Expected outcome of the search within the budget."""
    as_written_seconds: Range90 | None
    """Time of all trials, if the study fixes their number and length."""
    too_large: tuple[str, ...]
    """Recipes whose batches do not fit into memory undivided."""
    over_limits: tuple[str, ...]
    advice: tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def show_plan(plan: Plan, console: Console) -> None:
    """Print a plan; advice comes last."""

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    say(f"{plan.study}: {plan.data}")
    say(_workers_in_words(plan))
    say(_time_in_words(plan))
    console.print()
    console.print(_sizes_table(plan))
    console.print()
    console.print(_outcome_table(plan))
    console.print()
    if plan.as_written_seconds is not None:
        say(f"as written, without a budget, the study takes {_times(plan.as_written_seconds)}")
    if plan.over_limits:
        say(f"over [limits], never trained: {', '.join(plan.over_limits)}")
    if plan.too_large:
        room = gigabytes(plan.room_mb * 2**20)
        say(
            f"do not fit into {room} in one piece, go in micro-batches: {', '.join(plan.too_large)}", "yellow"
        )
    for line in plan.advice:
        say(line, "bold yellow")


def _workers_in_words(plan: Plan) -> str:
    if plan.workers == 1:
        return f"1 worker, {plan.device}"
    others = "the other one" if plan.workers == 2 else f"{plan.workers - 1} others"
    return f"{plan.workers} workers; one was measured while {others} worked, {plan.device}"


def _time_in_words(plan: Plan) -> str:
    last = plan.budget_seconds - plan.search_seconds - plan.repeats_seconds
    parts = {
        "to search": plan.search_seconds,
        "to train the finalists again": plan.repeats_seconds,
        "for the best": last,
    }
    parts_in_words = (f"{clock(seconds)} {what}" for what, seconds in parts.items() if seconds >= 0.5)
    return f"{clock(plan.budget_seconds)} in all: {', '.join(parts_in_words)}"


def _sizes_table(plan: Plan) -> Table:
    table = _table("measured here", *plan.sizes)
    sizes = plan.sizes.values()
    table.add_row("recipe", *(Text(size.recipe) for size in sizes))
    table.add_row("parameters", *(in_thousands(size.parameters) for size in sizes))
    table.add_row("GMACs at 256 x 256", *(f"{size.gmacs_at_256:.2f}" for size in sizes))
    if any(size.seconds_per_step for size in sizes):
        table.add_row("a step", *(_seconds(size.seconds_per_step) for size in sizes))
        table.add_row("memory for training", *(gigabytes(size.memory_mb * 2**20) for size in sizes))
        table.add_row("scoring at a rung", *(_seconds(size.seconds_per_evaluation) for size in sizes))
    for percent in plan.bought.reached:
        name = f"up to {percent} %" if percent < TOP else "whole trial"
        table.add_row(name, *(_steps_and_time(size, percent) for size in sizes))
    return table


def _steps_and_time(size: Size, percent: int) -> str:
    steps, seconds = size.steps[percent], size.seconds[percent]
    time = clock(seconds) if seconds >= 10 else _seconds(seconds)
    return f"{steps} step{'s' * (steps > 1)}, {time}" if steps else time


def _outcome_table(plan: Plan) -> Table:
    bought = plan.bought
    table = _table("what that buys", "median", "9 of 10 times")
    table.add_row("trials begun", *_counts(bought.begun))
    for percent, found in bought.reached.items():
        table.add_row(f"reach {percent} %" if percent < TOP else "trained to the end", *_counts(found))
    if bought.winner_steps.high:
        table.add_row("steps of the winner", *_counts(bought.winner_steps))
    seconds = bought.seconds
    table.add_row("time", clock(seconds.median), f"{clock(seconds.low)} to {clock(seconds.high)}")
    table.add_row("chance that it is too little", f"{bought.too_small:.0%}", "")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    return table


def _counts(found: Range90) -> tuple[str, str]:
    return f"{found.median:.0f}", f"{found.low:.0f} to {found.high:.0f}"


def _times(found: Range90) -> str:
    return f"{clock(found.median)} ({clock(found.low)} to {clock(found.high)})"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 0.1 else f"{1e3 * seconds:.2g} ms"
