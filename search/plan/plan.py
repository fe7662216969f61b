"""Prediction of a search before it starts: recipes are measured on this device, then searches are simulated."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from data.sources import Split
from models import count_parameters
from search.database import TrialFacts, as_stored, default_storage_url, open_study, record_facts
from search.errors import UserError
from search.inference import (
    device_name,
    free_and_total_memory,
    has_own_memory,
    is_lack_of_memory,
    limit_memory,
)
from search.plan.contention import busy_workers
from search.plan.cost_model import CostModel
from search.plan.simulator import SIMULATIONS, simulate_many
from search.plan.table import ExpectedOutcome, Plan, Range90, Size
from search.scheduler import MIN_STEPS_TO_COMPARE
from search.study import StudySpec
from search.text import clock, duration_flag, gigabytes
from search.trial import Diverged, forward_macs
from search.worker import (
    COST_SIDE,
    MEASURING_SHARE,
    InterpolatedCost,
    ProbeConfig,
    ProbeConfigs,
    ProbeResult,
    RunOptions,
    affordable_length,
    any_config,
    input_score,
    measure_probe,
    open_data,
    small_median_large,
    typical_speed,
)

MEASURE_SECONDS = 20.0
LARGER_BUDGETS = (
    1.25,
    1.5,
    2,
    3,
    4,
    6,
    8,
    12,
    16,
    24,
    36,
)  # multiples of the budget that are tried for advice
MAX_OVERRUN = 1.2  # multiple of the budget; a warning follows if it is exceeded
ADVICE_SIMULATIONS = 40
UNLIMITED_SECONDS = 1e9
WRITES = 10  # database writes that are timed
MANY_TRIALS = 1000  # so many trials are the default, not a limit that the study sets


def make_plan(
    spec: StudySpec, options: RunOptions, console: Console, others: Sequence[torch.device] = ()
) -> Plan:
    """Measure recipes from the whole space on this device, and simulate the search many times.

    `others` are the devices of the other workers, which have as many threads as this process.
    """
    started = time.monotonic()
    if options.memory is not None:
        each = options.memory // (1 + others.count(options.device))
        limit_memory(each)
        options = replace(options, memory=each)
    split = open_data(spec, options.out)
    input_score(split, split.val.representative(any_config(spec).val_megapixels))
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    hidden = console.quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("drawing recipes")
        planner = _Planner(spec, split, options, lambda text: progress.update(task, description=text))
        teramacs = planner.full_teramacs()
        seconds_per_write = _seconds_to_write(spec, options.out)
        setup_seconds = time.monotonic() - started
        progress.update(task, description="starting workers")
        typical = small_median_large(planner.probes.all)["median"].config
        with busy_workers(typical, options.out, options.device, others) as joining:
            if others:
                planner.forget_measurements()  # measured without the other workers
            planner.measure(until=time.monotonic() + MEASURE_SECONDS)
        progress.update(task, description="simulating the search")
        return planner.plan(teramacs, setup_seconds + joining, seconds_per_write, 1 + len(others))


@dataclass(frozen=True)
class _Search:
    """A search for simulation; its study is that of the costs."""

    costs: CostModel
    probes: Sequence[ProbeConfig]
    """The recipes that trials may have."""
    setup_seconds: float
    workers: int

    def of(self, spec: StudySpec, teramacs: float | None) -> "_Search":
        """A copy for a study with another time, and so another length of trainings."""
        return replace(self, costs=self.costs.of(spec, teramacs))

    def simulated(self, count: int) -> ExpectedOutcome:
        """The outcome of `count` simulated searches."""
        spec, costs = self.costs.spec, self.costs
        branching = _branching_settings(self.probes)
        trainings = [
            (
                probe,
                costs.training_cost(probe, tuple((k, v) for k, v in probe.values.items() if k in branching)),
            )
            for probe in self.probes
        ]
        known = [training for probe, training in trainings if probe.name]
        drawn = [training for probe, training in trainings if not probe.name] or known
        searches = simulate_many(spec, known, drawn, self.setup_seconds, count, workers=self.workers)
        first, needed = spec.ladder.percents()[0], min(spec.ladder.factor, spec.trials)
        middle = costs.training_cost(small_median_large(self.probes)["median"])
        return ExpectedOutcome(
            begun=_range([one.begun for one in searches]),
            reached={p: _range([one.reached[p] for one in searches]) for p in spec.ladder.percents()},
            seconds=_range([one.seconds for one in searches]),
            winner_steps=_range([one.winner_steps for one in searches]),
            too_small=sum(one.reached[first] < needed for one in searches) / len(searches),
            lowest_steps=middle.steps_at(spec.ladder.shares()[0]) if middle.steps else MIN_STEPS_TO_COMPARE,
        )


def _branching_settings(probes: Sequence[ProbeConfig]) -> set[str]:
    """Settings that have settings of their own below them: their values are the branch of a recipe."""
    names = {name for probe in probes for name in probe.values}
    return {name for name in names if any(other.startswith(f"{name}.") for other in names)}


class _Planner:
    """Measures recipes of a study, and makes the plan from the results."""

    def __init__(
        self, spec: StudySpec, split: Split, options: RunOptions, tell: Callable[[str], None]
    ) -> None:
        self.asked, self.split, self.options, self.tell = spec, split, options, tell
        self.spec = spec
        """The number of rungs is reduced to what the time allows."""
        self.speed = 0.0
        """Training speed in 10^12 multiply-adds a second, if the recipe leaves the length open."""
        self.probes = ProbeConfigs(spec, split.channels)
        self.free_memory = _free_memory(options)
        self.measured: dict[int, ProbeResult] = {}
        self.failed: dict[int, str] = {}
        self.took: list[tuple[float, float]] = []
        """Work of a step and seconds of measuring, for each measured recipe."""

    def forget_measurements(self) -> None:
        """Discard all measurements."""
        self.measured, self.took = {}, []

    def full_teramacs(self) -> float | None:
        """Length of a training and the number of rungs, found as in `run`; None if the recipe fixes the length."""
        if "steps" in self.spec.recipe:
            return None
        allowed = MEASURING_SHARE * self.spec.timeout
        self.speed = typical_speed(self.probes, self._seconds_per_step, allowed)
        found = affordable_length(self.asked, self.speed, self.probes)
        self.spec = self.asked.with_changes(ladder=self.asked.ladder.at_most(found.rungs))
        return found.teramacs

    def measure(self, until: float) -> None:
        """Measure a small, a median and a large recipe, then known and random ones until the time `until`."""
        ordered = sorted(self.probes.drawn, key=lambda probe: probe.work)
        others = [*self.probes.known, *ordered[::4], *ordered[2::4], *ordered[1::2]]
        for probe in small_median_large(self.probes.all).values():
            self._measure(probe)
        for probe in others:
            if not self.took or time.monotonic() + InterpolatedCost(self.took).at(probe.work) < until:
                self._measure(probe)
        if not self.measured:
            raise UserError(f"no recipe can be trained here: {next(iter(self.failed.values()))}")

    def _seconds_per_step(self, probe: ProbeConfig) -> float:
        self._measure(probe)
        if probe.number not in self.measured:
            raise UserError(f"{_name(probe)}: cannot be trained here: {self.failed[probe.number]}")
        return self.measured[probe.number].pace.seconds_per_step

    def _measure(self, probe: ProbeConfig) -> None:
        if probe.number in self.measured or probe.number in self.failed:
            return
        self.tell(f"measuring {_name(probe)}")
        started = time.monotonic()
        try:
            self.measured[probe.number] = measure_probe(probe, self.split, self.options.device)
        except Exception as error:
            if not (isinstance(error, Diverged) or is_lack_of_memory(error)):
                raise
            self.failed[probe.number] = str(error).splitlines()[0]
        self.took.append((probe.work, time.monotonic() - started))

    def plan(
        self, teramacs: float | None, setup_seconds: float, seconds_per_write: float, workers: int
    ) -> Plan:
        spec, measured = self.spec, list(self.measured.values())
        # The time of a filter cannot be predicted from its work: only measured recipes are simulated.
        trained = any(one.probe.work for one in measured)
        costs = CostModel(spec, self.split, measured, teramacs, seconds_per_write)
        over = [probe for probe in self.probes.all if self._over_limits(probe, costs)]
        pool = self.probes.all if trained else [one.probe for one in measured]
        within = [probe for probe in pool if probe not in over] or pool
        search = _Search(costs, within, setup_seconds, workers)
        outcome = search.simulated(SIMULATIONS)
        large = [probe for probe in self.probes.all if self._too_large(probe, costs)]
        shown = small_median_large(
            [one.probe for one in measured],
            (lambda probe: probe.work) if trained else costs.seconds_per_megapixel,
        )
        return Plan(
            study=spec.name,
            data=self.split.note,
            device=device_name(self.options.device),
            workers=workers,
            budget_seconds=spec.timeout,
            search_seconds=spec.timeout * spec.search_share,
            repeats_seconds=spec.timeout * max(1 - spec.finale - spec.search_share, 0.0),
            recipes_measured=len(measured),
            room_mb=self.free_memory / 2**20,
            sizes={name: self._size(probe, costs) for name, probe in shown.items()},
            bought=outcome,
            as_written_seconds=self._as_written(search),
            too_large=_names(large),
            over_limits=_names(over),
            advice=tuple(self._advice(search, outcome, large)),
        )

    def _as_written(self, search: _Search) -> Range90 | None:
        """Time of all trials, if the study fixes their number and length."""
        if search.costs.teramacs is not None or self.spec.trials >= MANY_TRIALS:
            return None
        endless = self.spec.with_changes(timeout=UNLIMITED_SECONDS, confirm_seeds=0)
        return search.of(endless, None).simulated(ADVICE_SIMULATIONS).seconds

    def _size(self, probe: ProbeConfig, costs: CostModel) -> Size:
        cost, ladder, model = costs.training_cost(probe), self.spec.ladder, probe.config.model
        shares = dict(zip(ladder.percents(), ladder.shares(), strict=True))
        return Size(
            recipe=_name(probe),
            parameters=count_parameters(model.build()),
            gmacs_at_256=forward_macs(model, COST_SIDE) / 1e9,
            seconds_per_step=cost.per_step,
            memory_mb=costs.memory(probe) / 2**20,
            seconds_per_evaluation=cost.per_score,
            steps={percent: cost.steps_at(share) for percent, share in shares.items()},
            seconds={percent: cost.seconds_between(0.0, share) for percent, share in shares.items()},
            notes=self.measured[probe.number].pace.notes,
        )

    def _over_limits(self, probe: ProbeConfig, costs: CostModel) -> bool:
        limits, model = self.spec.limits, probe.config.model
        if not limits.model_dump(exclude_none=True):
            return False
        facts = as_stored(
            parameters=count_parameters(model.build()),
            gmacs_at_256=forward_macs(model, COST_SIDE) / 1e9,
            ms_per_megapixel=1e3 * costs.seconds_per_megapixel(probe),
        )
        return limits.refusal(TrialFacts(facts)) is not None

    def _too_large(self, probe: ProbeConfig, costs: CostModel) -> bool:
        found = self.measured.get(probe.number)
        rescued = bool(found and found.pace.notes) or probe.number in self.failed
        return rescued or costs.memory(probe) > self.free_memory

    def _advice(self, search: _Search, outcome: ExpectedOutcome, large: Sequence[ProbeConfig]) -> list[str]:
        said = []
        if not outcome.enough:
            what = f"{outcome.too_small:.0%} of such searches compare fewer than {self.spec.ladder.factor} trials"
            if outcome.lowest_steps < MIN_STEPS_TO_COMPARE:
                steps = f"{outcome.lowest_steps} step" + "s" * (outcome.lowest_steps > 1)
                what = f"a median model makes {steps} before it is judged first"
            larger = self._larger_budget(search)
            said.append(f"the budget is too small: {what}; {larger}")
        elif outcome.seconds.high > MAX_OVERRUN * self.spec.timeout:
            said.append(
                f"the best may take longer than the time that is left, {clock(outcome.seconds.high)} in all: "
                "even its shortest last stretch does not end in time"
            )
        if large and self.options.memory is None and self.options.device.type == "cpu":
            said.append(
                f"some recipes need more than the {gigabytes(self.free_memory)} that are free: "
                f"--memory {max(int(0.8 * self.free_memory / 2**30), 1)}G makes their batches go in parts"
            )
        return said

    def _larger_budget(self, search: _Search) -> str:
        """Advice on the next budget that is large enough."""
        for factor in LARGER_BUDGETS:
            spec, teramacs = self.asked.with_changes(timeout=_rounded(factor * self.spec.timeout)), None
            if search.costs.teramacs is not None:
                found = affordable_length(spec, self.speed, self.probes)
                spec = spec.with_changes(ladder=spec.ladder.at_most(found.rungs))
                teramacs = found.teramacs
            if search.of(spec, teramacs).simulated(ADVICE_SIMULATIONS).enough:
                return f"--budget {duration_flag(spec.timeout)} would do"
        if search.costs.teramacs is None:
            return "fewer recipe.steps would help"
        return "fewer rungs or smaller models would help"


def _seconds_to_write(spec: StudySpec, out: Path) -> float:
    """Time of a database write, measured in a temporary database."""
    with tempfile.TemporaryDirectory(prefix=".plan-", dir=out) as folder:
        study = open_study(
            spec, default_storage_url(Path(folder)), continue_with_changes=False, out=Path(folder)
        )
        trial = study.ask()
        started = time.monotonic()
        for number in range(WRITES):
            record_facts(trial, number=number)
        return (time.monotonic() - started) / WRITES


def _free_memory(options: RunOptions) -> float:
    """Bytes that are free for training."""
    if has_own_memory(options.device):
        return float(free_and_total_memory(options.device)[0])
    if options.memory is not None:
        held = psutil.Process().memory_info()
        return float(options.memory - getattr(held, "data", held.rss))
    return float(psutil.virtual_memory().available)


def _range(values: Sequence[float]) -> Range90:
    ordered = sorted(values)
    last = len(ordered) - 1
    return Range90(*(ordered[round(share * last)] for share in (0.5, 0.05, 0.95)))


def _name(probe: ProbeConfig) -> str:
    return probe.name or "a random recipe"


def _names(probes: Sequence[ProbeConfig]) -> tuple[str, ...]:
    """Names of known recipes, and the number of random ones."""
    drawn = sum(not probe.name for probe in probes)
    named = tuple(probe.name for probe in probes if probe.name)
    return (*named, f"{drawn} random recipes") if drawn else named


def _rounded(seconds: float) -> float:
    """Round to a duration that people would write."""
    unit = next(unit for unit in (3600, 600, 60, 10, 1) if seconds >= 2 * unit or unit == 1)
    return float(unit * round(seconds / unit))
