"""The one schema of what the database holds about a trial: each attribute's name, type, unit and meaning.

Optuna stores a trial's settings, scores and state by itself; everything else is one of these facts.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from operator import methodcaller
from typing import Any, Generic, Protocol, Self, TypeVar, overload

T = TypeVar("T")

# Names that stand in conditions of transactions, or are given before there is a trial.
GOAL, LENGTH, LABEL, RETRY, REPLACED = "goal", "length", "label", "retry_of", "replaced"
OWNER, BEAT, DEATHS = "owner", "beat", "deaths"


class HasAttributes(Protocol):
    """Optuna's `Trial`, `FrozenTrial` and `Study`."""

    @property
    def user_attrs(self) -> dict[str, Any]: ...


class Fact(Generic[T]):
    """An attribute of the database, under the name that it has in the class; `default` where it is missing.

    It is read when it is asked for: lists of thousands of trials cost nothing beforehand. `load` turns the
    stored value into this type, `dump` the other way; without them it is stored as it is.
    """

    def __init__(
        self,
        default: T,
        load: Callable[[Any], T] | None = None,
        dump: Callable[[Any], Any] | None = None,
    ) -> None:
        self.default, self.load, self.dump = default, load, dump

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, facts: None, owner: type) -> Self: ...
    @overload
    def __get__(self, facts: object, owner: type) -> T: ...
    def __get__(self, facts: Any, owner: type) -> T | Self:
        if facts is None:
            return self
        value: Any = facts.stored.get(self.name)
        if value is None:
            return self.default
        return value if self.load is None else self.load(value)


@dataclass(frozen=True)
class RungScore:
    """A score on the way: means over validation images after `step` steps and `seconds` of the trial's time."""

    step: int
    psnr_db: float
    ssim: float = float("nan")
    mae: float = float("nan")
    seconds: float = 0.0


def _load_scores(text: str) -> tuple[RungScore, ...]:
    return tuple(RungScore(**score) for score in json.loads(text))


def _dump_scores(scores: Sequence[Any]) -> str:
    return json.dumps([asdict(score) for score in scores])


@dataclass(frozen=True)
class TrialFacts:
    """What is recorded with one trial. `stored` are its attributes; those that are not named here are ignored."""

    stored: Mapping[str, Any] = field(default_factory=dict)

    # Where its settings come from.
    label = Fact[str | None](None)
    """Name of a known recipe, or which trial it repeats."""
    replaced = Fact[Mapping[str, Any]]({})
    """Parts of the study's recipe that this trial has otherwise, in the shape of the recipe."""
    retry_of = Fact[int | None](None)
    """Number of the trial whose settings are tried again."""
    number = Fact[int | None](None)
    """Its number in the study that it was copied from; only in the simulated studies of `plan`."""

    # How far it is to go, and has come.
    goal = Fact[int | None](None)
    """The rung that it was last sent to, in percent of its training. None before it first began."""
    length = Fact[Sequence[Any] | None](None)
    """Steps of the whole training, and the marks `(step, share)` of its schedule, once the last stretch fixed them."""
    steps = Fact[int](0)
    """Steps of its whole training."""
    steps_done = Fact[int](0)
    seconds = Fact[float](0.0)
    """Time of the trial, validation included."""
    seconds_per_step = Fact[float](0.0)
    """Of its latest run, validation not counted."""
    rungs = Fact[tuple[RungScore, ...]]((), _load_scores, _dump_scores)
    """The whole learning curve. Stored as JSON text."""
    rescues = Fact[Sequence[str]](())
    """How it was rescued from lack of memory or divergence, a sentence each."""
    ended = Fact[str]("")
    """Why it ended, in words."""
    traceback = Fact[str]("")
    """Of the error that ended a failed trial."""

    # What it depended on.
    config = Fact[Mapping[str, Any]]({}, json.loads, methodcaller("model_dump_json"))
    """All that it was trained by, as nested plain values. Stored as the JSON text of its `TrialConfig`."""
    seed = Fact[int | None](None)
    data = Fact[str | None](None)
    """Fingerprint of the pairs."""
    device = Fact[str | None](None)
    """For people: "cpu (2 threads)"."""
    versions = Fact[Mapping[str, str]]({}, json.loads, json.dumps)
    """Of Python, torch and Optuna. Stored as JSON text."""
    inherited = Fact[Mapping[str, Any] | None](None)
    """Whose weights it began from: `trials` (that one, and those behind it), `psnr_db`, `sha256`.

    Empty where there were none to begin from; None where none were looked for.
    """

    # What its model costs.
    parameters = Fact[int | None](None)
    gmacs_at_256 = Fact[float | None](None)
    """10^9 multiply-adds for 256 x 256 pixels."""
    ms_per_megapixel = Fact[float | None](None)
    """Milliseconds to restore 10^6 pixels on its device."""
    mb_per_megapixel = Fact[float | None](None)
    """2^20 bytes of tensors while 10^6 pixels are restored at once."""
    peak_memory_mb = Fact[float | None](None)
    """2^20 bytes: the most that training held on a GPU; on a CPU what the process held at the end."""

    # What it achieved, if it is complete: means over the validation images.
    psnr_db = Fact[float | None](None)
    ssim = Fact[float | None](None)
    mae = Fact[float | None](None)
    """Mean absolute error, of values from 0 to 1."""

    # Who works on it.
    owner = Fact[Mapping[str, Any]]({})
    """The process that works on it, or ended it: `worker`, `name`, `host`, `boot`, `pid`, `parent`.

    Empty while it waits.
    """
    beat = Fact[Mapping[str, Any]]({})
    """The latest sign of life of that process: `count`, `at` (seconds since 1970), `step`, `steps`."""
    deaths = Fact[Sequence[Mapping[str, Any]]](())
    """Workers that died on it: `how`, and at which `rung` in percent."""

    def config_text(self) -> str:
        """`config` as it is stored; empty where it is missing."""
        return str(self.stored.get("config", ""))


def facts_of(trial: HasAttributes) -> TrialFacts:
    """What the database holds about a trial; of a running one as it is at this moment."""
    return TrialFacts(trial.user_attrs)


def as_stored(**facts: Any) -> dict[str, Any]:
    """Facts about a trial, by name, as attributes of the database."""
    return dumped(TrialFacts, facts)


def dumped(schema: type, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as they are stored, in their order. Every name must be one of `schema`."""
    known = fact_names(schema)
    assert facts.keys() <= known.keys(), f"no such facts: {sorted(facts.keys() - known.keys())}"
    return {name: dump(value) if (dump := known[name].dump) else value for name, value in facts.items()}


def fact_names(schema: type) -> dict[str, Fact[Any]]:
    """The facts of a schema by name."""
    return {name: fact for name, fact in vars(schema).items() if isinstance(fact, Fact)}
