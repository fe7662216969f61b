"""Schema of the facts that the database holds about a trial: name, type, unit and meaning of each attribute.

Optuna itself stores settings, scores and state of a trial; everything else is one of these facts.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from operator import methodcaller
from typing import Any, Generic, Protocol, Self, TypeVar, overload

T = TypeVar("T")

# Names of facts that are used where no `TrialFacts` is at hand.
GOAL, LENGTH, LABEL, RETRY, REPLACED = "goal", "length", "label", "retry_of", "replaced"
OWNER, BEAT, DEATHS = "owner", "beat", "deaths"


class HasAttributes(Protocol):
    """Optuna's `Trial`, `FrozenTrial` and `Study`."""

    @property
    def user_attrs(self) -> dict[str, Any]: ...


class Fact(Generic[T]):
    """An attribute of the database; `default` where it is missing.

    It is stored under `key`, which is its name in the class by default. `load` converts the stored value to this type,
    `dump` converts back; without them the value is stored as it is. Values are converted on access only, so that
    lists of thousands of trials are fast.
    """

    def __init__(
        self,
        default: T,
        load: Callable[[Any], T] | None = None,
        dump: Callable[[Any], Any] | None = None,
        key: str = "",
    ) -> None:
        self.default, self.load, self.dump, self.key = default, load, dump, key

    def __set_name__(self, owner: type, name: str) -> None:
        self.key = self.key or name

    @overload
    def __get__(self, facts: None, owner: type) -> Self: ...
    @overload
    def __get__(self, facts: object, owner: type) -> T: ...
    def __get__(self, facts: Any, owner: type) -> T | Self:
        if facts is None:
            return self
        value: Any = facts.stored.get(self.key)
        if value is None:
            return self.default
        return value if self.load is None else self.load(value)


@dataclass(frozen=True)
class RungScore:
    """A score during training: means over validation images after `step` steps and `seconds` of the trial's time."""

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
    """Facts recorded with one trial. `stored` are its attributes; those that are not named here are ignored."""

    stored: Mapping[str, Any] = field(default_factory=dict)

    # Origin of its settings.
    label = Fact[str | None](None)
    """Name of a known recipe, or a note which trial it retries."""
    replaced = Fact[Mapping[str, Any]]({})
    """Parts of the study's recipe that this trial replaces, in the shape of the recipe."""
    retry_of = Fact[int | None](None)
    """Number of the trial that it retries."""
    number = Fact[int | None](None)
    """Its number in the study that it was copied from; only in the simulated studies of `plan`."""

    # Its goal and progress.
    goal = Fact[int | None](None)
    """The rung up to which it was last to be trained, in percent of its training. None before its first start."""
    length = Fact[Sequence[Any] | None](None)
    """Steps of the whole training and the marks `(step, share)` of its schedule, once planned for the last stretch."""
    steps = Fact[int](0)
    """Steps of its whole training."""
    steps_done = Fact[int](0)
    seconds = Fact[float](0.0)
    """Time of the trial, validation included."""
    seconds_per_step = Fact[float](0.0)
    """Since it was last continued, validation not counted."""
    rungs = Fact[tuple[RungScore, ...]]((), _load_scores, _dump_scores)
    """The whole learning curve. Stored as JSON text."""
    rescues = Fact[Sequence[str]](())
    """Sentences about recoveries from lack of memory or divergence."""
    ended = Fact[str]("")
    """Reason of its end, in words."""
    traceback = Fact[str]("")
    """Traceback of the error that ended a failed trial."""

    # Inputs of its training.
    config = Fact[Mapping[str, Any]]({}, json.loads, methodcaller("model_dump_json"))
    """Its config, as nested plain values. Stored as the JSON text of its `TrialConfig`."""
    seed = Fact[int | None](None)
    data = Fact[str | None](None)
    """Fingerprint of the pairs."""
    device = Fact[str | None](None)
    """Name for people: "cpu (2 threads)"."""
    versions = Fact[Mapping[str, str]]({}, json.loads, json.dumps)
    """Versions of Python, torch and Optuna. Stored as JSON text."""
    inherited = Fact[Mapping[str, Any] | None](None)
    """Origin of inherited starting weights: `trials` (that trial, then those it inherited from), `psnr_db`, `sha256`.

    Empty if no suitable weights were found; None if none were looked for.
    """

    # Cost of its model.
    parameters = Fact[int | None](None)
    gmacs_at_256 = Fact[float | None](None)
    """10^9 multiply-adds for 256 x 256 pixels."""
    ms_per_megapixel = Fact[float | None](None)
    """Milliseconds to restore 10^6 pixels on its device."""
    mb_per_megapixel = Fact[float | None](None)
    """2^20 bytes of tensors while 10^6 pixels are restored at once."""
    peak_memory_mb = Fact[float | None](None)
    """2^20 bytes: the most that training held on a GPU; on a CPU what the process held at the end."""

    # Final scores of a complete trial: means over the validation images.
    psnr_db = Fact[float | None](None)
    ssim = Fact[float | None](None)
    mae = Fact[float | None](None)
    """Mean absolute error, of values from 0 to 1."""

    # Its worker.
    owner = Fact[Mapping[str, Any]]({})
    """The process that trains it, or has ended it: `worker`, `name`, `host`, `boot`, `pid`, `parent`.

    Empty while it waits.
    """
    beat = Fact[Mapping[str, Any]]({})
    """The latest heartbeat of that process: `count`, `at` (seconds since 1970), `step`, `steps`."""
    deaths = Fact[Sequence[Mapping[str, Any]]](())
    """Crashes of workers during this trial: `how`, and the `rung` reached, in percent."""

    def config_text(self) -> str:
        """`config` as it is stored; empty where it is missing."""
        return str(self.stored.get("config", ""))


def facts_of(trial: HasAttributes) -> TrialFacts:
    """The facts of a trial; those of a running trial as they are at this moment."""
    return TrialFacts(trial.user_attrs)


def as_stored(**facts: Any) -> dict[str, Any]:
    """Facts of a trial, given by name, as attributes of the database."""
    return dumped(TrialFacts, facts)


def dumped(schema: type, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as attributes, by key, in their order. Every name must be one of `schema`."""
    known = fact_names(schema)
    assert facts.keys() <= known.keys(), f"no such facts: {sorted(facts.keys() - known.keys())}"
    return {
        known[name].key: dump(value) if (dump := known[name].dump) else value for name, value in facts.items()
    }


def fact_names(schema: type) -> dict[str, Fact[Any]]:
    """The facts of a schema by name."""
    return {name: fact for name, fact in vars(schema).items() if isinstance(fact, Fact)}
