"""What a budget buys, told before anything starts: measured on this device, then played by the rules of a search."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from data import Split
from models.cost import count_parameters
from search import forecast, storage
from search.company import company
from search.courses import Costs
from search.device import device_name
from search.errors import UserError
from search.ladder import TELLING_STEPS
from search.length import MEASURING_SHARE, affordable
from search.opening import any_config, open_data, unchanged
from search.price import Bought, Plan, Range90, Size, gigabytes, short
from search.progress import clock
from search.run_options import RunOptions
from search.samples import Measured, Recipes, Sample, Scale, branches, measure, sizes, typical_speed
from search.study import StudySpec
from search.trial.config import TrialConfig, forward_macs
from search.trial.evaluate import spread
from search.trial.rescue import is_lack_of_memory, limit_memory
from search.trial.train import Diverged
from search.trial_facts import TrialFacts, as_stored
from search.trial_setup import COST_SIDE

MEASURE_SECONDS = 20.0
LARGER = (1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 36)  # times the budget, tried for advice
OVERDRAWN = 1.2  # times the budget: more is told
QUICK = 40  # plays for advice
ENDLESS = 1e9  # seconds
WRITES = 10  # timed
MANY_TRIALS = 1000  # as many as nobody asked for


def make(spec: StudySpec, options: RunOptions, console: Console, others: Sequence[torch.device] = ()) -> Plan:
    """Measure recipes from all over the space on this device, and play the search many times.

    With further workers on the devices of `others`, each of them with as many threads as this process.
    """
    started = time.monotonic()
    if options.memory is not None:
        each = options.memory // (1 + others.count(options.device))
        limit_memory(each)
        options = replace(options, memory=each)
    split = open_data(spec, options.out)
    unchanged(split, spread(split.val, any_config(spec).val_megapixels))
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    hidden = console.quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("drawing recipes")
        survey = _Survey(spec, split, options, lambda text: progress.update(task, description=text))
        teramacs = survey.full_teramacs()
        writing = _seconds_to_write(spec, options.out)
        opening = time.monotonic() - started
        progress.update(task, description="starting workers")
        typical = sizes(survey.all)["median"].config
        with company(typical, options.out, options.device, others) as joining:
            if others:
                survey.forget()  # alone, the pace was another
            survey.measure(until=time.monotonic() + MEASURE_SECONDS)
        progress.update(task, description="playing the search")
        return survey.plan(teramacs, opening + joining, writing, 1 + len(others))


class _Survey:
    """The recipes of a study, those of them that were measured, and what follows."""

    def __init__(
        self, spec: StudySpec, split: Split, options: RunOptions, tell: Callable[[str], None]
    ) -> None:
        self.asked, self.split, self.options, self.tell = spec, split, options, tell
        self.spec = spec
        """With as many rungs as it has time for."""
        self.speed = 0.0
        """10^12 multiply-adds a second, where that decides about the length."""
        self.workers = 1
        self.recipes = Recipes(spec, split.channels)
        self.room = _room(options)
        self.measured: dict[int, Measured] = {}
        self.failed: dict[int, str] = {}
        self.took: list[tuple[float, float]] = []
        """Work of a step, and seconds that measuring it took."""

    @property
    def all(self) -> list[Sample]:
        return self.recipes.known + self.recipes.drawn

    def forget(self) -> None:
        """All that was measured."""
        self.measured, self.took = {}, []

    def full_teramacs(self) -> float | None:
        """The length of a training, where the recipe leaves it open: as `run` finds it, and the rungs with it."""
        if "steps" in self.spec.recipe:
            return None
        allowed = MEASURING_SHARE * self.spec.timeout
        self.speed = typical_speed(self.recipes, self._seconds_per_step, allowed)
        found = affordable(self.asked, self.speed, self.recipes)
        self.spec = self.asked.with_changes(ladder=self.asked.ladder.at_most(found.rungs))
        return found.teramacs

    def measure(self, until: float) -> None:
        """Small, median and large, then known ones and others from small to large while there is time."""
        ordered = sorted(self.recipes.drawn, key=lambda sample: sample.work)
        others = [*self.recipes.known, *ordered[::4], *ordered[2::4], *ordered[1::2]]
        for sample in sizes(self.all).values():
            self._measure(sample)
        for sample in others:
            if not self.took or time.monotonic() + Scale(self.took).at(sample.work) < until:
                self._measure(sample)
        if not self.measured:
            raise UserError(f"no recipe can be trained here: {next(iter(self.failed.values()))}")

    def _seconds_per_step(self, config: TrialConfig) -> float:
        sample = next(sample for sample in self.all if sample.config is config)
        self._measure(sample)
        if id(config) not in self.measured:
            raise UserError(f"{_name(sample)}: cannot be trained here: {self.failed[id(config)]}")
        return self.measured[id(config)].pace.seconds_per_step

    def _measure(self, sample: Sample) -> None:
        if id(sample.config) in self.measured or id(sample.config) in self.failed:
            return
        self.tell(f"measuring {_name(sample)}")
        started = time.monotonic()
        try:
            self.measured[id(sample.config)] = measure(sample, self.split, self.options.device)
        except Exception as error:
            if not (isinstance(error, Diverged) or is_lack_of_memory(error)):
                raise
            self.failed[id(sample.config)] = str(error).splitlines()[0]
        self.took.append((sample.work, time.monotonic() - started))

    def plan(self, teramacs: float | None, opening: float, writing: float, workers: int) -> Plan:
        self.workers = workers
        spec, measured = self.spec, list(self.measured.values())
        # Nothing about a filter tells how long it takes: those that were not tried stand for none.
        trained = any(one.sample.work for one in measured)
        costs = Costs(spec, self.split, measured, teramacs, writing)
        over = [sample for sample in self.all if self._over_limits(sample, costs)]
        pool = self.all if trained else [one.sample for one in measured]
        within = [sample for sample in pool if sample not in over] or pool
        bought = self._bought(spec, costs, within, opening, forecast.PLAYS)
        large = [sample for sample in self.all if self._too_large(sample, costs)]
        shown = sizes(
            [one.sample for one in measured],
            (lambda sample: sample.work) if trained else costs.seconds_per_megapixel,
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
            room_mb=self.room / 2**20,
            sizes={name: self._size(sample, costs) for name, sample in shown.items()},
            bought=bought,
            as_written_seconds=self._as_written(costs, within, opening),
            too_large=_names(large),
            over_limits=_names(over),
            advice=tuple(self._advice(bought, costs, within, opening, large)),
        )

    def _bought(
        self, spec: StudySpec, costs: Costs, samples: Sequence[Sample], opening: float, count: int
    ) -> Bought:
        branch = branches(samples)
        courses = [(sample, costs.course(sample, branch[id(sample)])) for sample in samples]
        known = [course for sample, course in courses if sample.name]
        drawn = [course for sample, course in courses if not sample.name] or known
        fates = forecast.plays(spec, known, drawn, opening, count, workers=self.workers)
        first, needed = spec.ladder.percents()[0], min(spec.ladder.factor, spec.trials)
        middle = costs.course(sizes(samples)["median"])
        return Bought(
            begun=_range([fate.begun for fate in fates]),
            reached={p: _range([fate.reached[p] for fate in fates]) for p in spec.ladder.percents()},
            seconds=_range([fate.seconds for fate in fates]),
            winner_steps=_range([fate.winner_steps for fate in fates]),
            too_small=sum(fate.reached[first] < needed for fate in fates) / len(fates),
            lowest_steps=middle.steps_at(spec.ladder.shares()[0]) if middle.steps else TELLING_STEPS,
        )

    def _as_written(self, costs: Costs, samples: Sequence[Sample], opening: float) -> Range90 | None:
        if costs.teramacs is not None or self.spec.trials >= MANY_TRIALS:
            return None
        endless = self.spec.with_changes(timeout=ENDLESS, confirm_seeds=0)
        return self._bought(endless, costs, samples, opening, QUICK).seconds

    def _size(self, sample: Sample, costs: Costs) -> Size:
        course, ladder, model = costs.course(sample), self.spec.ladder, sample.config.model
        shares = dict(zip(ladder.percents(), ladder.shares(), strict=True))
        return Size(
            recipe=_name(sample),
            parameters=count_parameters(model.build()),
            gmacs_at_256=forward_macs(model, COST_SIDE) / 1e9,
            seconds_per_step=course.per_step,
            memory_mb=costs.memory(sample) / 2**20,
            seconds_per_evaluation=course.per_score,
            steps={percent: course.steps_at(share) for percent, share in shares.items()},
            seconds={percent: course.climb(0.0, share) for percent, share in shares.items()},
            notes=self.measured[id(sample.config)].pace.notes,
        )

    def _over_limits(self, sample: Sample, costs: Costs) -> bool:
        limits, model = self.spec.limits, sample.config.model
        if not limits.model_dump(exclude_none=True):
            return False
        facts = as_stored(
            parameters=count_parameters(model.build()),
            gmacs_at_256=forward_macs(model, COST_SIDE) / 1e9,
            ms_per_megapixel=1e3 * costs.seconds_per_megapixel(sample),
        )
        return limits.refusal(TrialFacts(facts)) is not None

    def _too_large(self, sample: Sample, costs: Costs) -> bool:
        found = self.measured.get(id(sample.config))
        rescued = bool(found and found.pace.notes) or id(sample.config) in self.failed
        return rescued or costs.memory(sample) > self.room

    def _advice(
        self, bought: Bought, costs: Costs, samples: Sequence[Sample], opening: float, large: Sequence[Sample]
    ) -> list[str]:
        said = []
        if not bought.enough:
            what = (
                f"{bought.too_small:.0%} of such searches compare fewer than {self.spec.ladder.factor} trials"
            )
            if bought.lowest_steps < TELLING_STEPS:
                steps = f"{bought.lowest_steps} step" + "s" * (bought.lowest_steps > 1)
                what = f"a median model makes {steps} before it is judged first"
            larger = self._larger_budget(costs, samples, opening)
            said.append(f"the budget is too small: {what}; {larger}")
        elif bought.seconds.high > OVERDRAWN * self.spec.timeout:
            said.append(
                f"the best may take longer than the time that is left, {clock(bought.seconds.high)} in all: "
                "even its shortest last stretch does not end in time"
            )
        if large and self.options.memory is None and self.options.device.type == "cpu":
            said.append(
                f"some recipes need more than the {gigabytes(self.room)} that are free: "
                f"--memory {max(int(0.8 * self.room / 2**30), 1)}G makes their batches go in parts"
            )
        return said

    def _larger_budget(self, costs: Costs, samples: Sequence[Sample], opening: float) -> str:
        """The next budget that is enough, in words."""
        for factor in LARGER:
            spec, teramacs = self.asked.with_changes(timeout=_rounded(factor * self.spec.timeout)), None
            if costs.teramacs is not None:
                found = affordable(spec, self.speed, self.recipes)
                spec = spec.with_changes(ladder=spec.ladder.at_most(found.rungs))
                teramacs = found.teramacs
            grown = costs.of(spec, teramacs)
            if self._bought(spec, grown, samples, opening, QUICK).enough:
                return f"--budget {short(spec.timeout)} would do"
        if costs.teramacs is None:
            return "fewer recipe.steps would help"
        return "fewer rungs or smaller models would help"


def _seconds_to_write(spec: StudySpec, out: Path) -> float:
    """To change a trial, once, in a database that is made for it."""
    with tempfile.TemporaryDirectory(prefix=".plan-", dir=out) as folder:
        study = storage.open_study(spec, storage.default_url(Path(folder)), continue_with_changes=False)
        trial = study.ask()
        started = time.monotonic()
        for number in range(WRITES):
            storage.change(study, trial._trial_id, {"number": number})
        return (time.monotonic() - started) / WRITES


def _room(options: RunOptions) -> float:
    """Bytes that training may take here."""
    if options.device.type == "cuda":
        return float(torch.cuda.mem_get_info(options.device)[0])
    if options.memory is not None:
        held = psutil.Process().memory_info()
        return float(options.memory - getattr(held, "data", held.rss))
    return float(psutil.virtual_memory().available)


def _range(values: Sequence[float]) -> Range90:
    ordered = sorted(values)
    last = len(ordered) - 1
    return Range90(*(ordered[round(share * last)] for share in (0.5, 0.05, 0.95)))


def _name(sample: Sample) -> str:
    return sample.name or "a random recipe"


def _names(samples: Sequence[Sample]) -> tuple[str, ...]:
    """The known ones by name, the others by their number."""
    drawn = sum(not sample.name for sample in samples)
    named = tuple(sample.name for sample in samples if sample.name)
    return (*named, f"{drawn} random recipes") if drawn else named


def _rounded(seconds: float) -> float:
    """To a length that people would write."""
    unit = next(unit for unit in (3600, 600, 60, 10, 1) if seconds >= 2 * unit or unit == 1)
    return float(unit * round(seconds / unit))
