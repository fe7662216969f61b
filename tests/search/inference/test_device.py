"""Devices that are not here, played by a recorder that refuses what the real ones refuse."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from search.inference import (
    Precision,
    available_devices,
    device_name,
    graphics_cards,
    has_own_memory,
    memory_limit,
    memory_mb,
    peak_memory_growth,
    random_state,
    release_memory,
    set_random_state,
    synchronise,
)
from search.inference.device import half_precision

SECOND = torch.device("cuda:1")
CPU = torch.device("cpu")
STATISTICS = ("memory_allocated", "max_memory_allocated", "reset_peak_memory_stats")


class Cards:
    """Two cards as CUDA has them: no statistics before `init`, and only the current one is asked about bf16."""

    def __init__(self) -> None:
        self.ready, self.current = False, 0
        self.allocated, self.peak = [0, 1000], [0, 9000]
        self.asked: list[str] = []

    def needs_init(self, name: str, answer: Callable[[int], Any]) -> Callable[[torch.device], Any]:
        def ask(which: torch.device) -> Any:
            self.asked.append(name)
            if not self.ready:
                raise RuntimeError("Invalid device argument")
            return answer(which.index or 0)

        return ask

    def init(self) -> None:
        self.ready = True

    def allocate(self, size: int) -> None:
        """Take memory of the second card for a moment."""
        self.peak[1] = max(self.peak[1], self.allocated[1] + size)

    def reset(self, index: int) -> None:
        self.peak[index] = self.allocated[index]


class Current:
    """`torch.accelerator.device_index` of the recorder."""

    def __init__(self, cards: Cards, index: int | None) -> None:
        self.cards, self.index, self.before = cards, index, cards.current

    def __enter__(self) -> None:
        if self.index is not None:
            self.cards.current = self.index

    def __exit__(self, *_: object) -> None:
        self.cards.current = self.before


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Cards:
    """The recorder in the place of `torch.cuda` and `torch.accelerator`."""
    cards = Cards()
    answers: dict[str, Callable[[int], Any]] = {
        "memory_allocated": lambda index: cards.allocated[index],
        "max_memory_allocated": lambda index: cards.peak[index],
        "reset_peak_memory_stats": cards.reset,
    }
    for name, answer in answers.items():
        for module in (torch.cuda, torch.accelerator):
            monkeypatch.setattr(module, name, cards.needs_init(name, answer))
    monkeypatch.setattr(
        torch.accelerator, "get_memory_info", cards.needs_init("info", lambda n: (700 + n, 800))
    )
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda")
    )
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "device_index", lambda index: Current(cards, index))
    monkeypatch.setattr(torch.cuda, "init", cards.init)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda which: f"card {which.index}")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: cards.current == 1)
    return cards


def test_growth_of_memory_is_measured_before_anything_was_on_the_card(cards: Cards) -> None:
    assert peak_memory_growth(lambda: cards.allocate(500), SECOND) == 500
    assert set(STATISTICS) <= set(cards.asked)


def test_free_memory_is_that_of_the_card_asked_for(cards: Cards) -> None:
    assert memory_limit(SECOND, None) == 701 * 9 // 10
    assert memory_limit(torch.device("cuda:0"), None) == 700 * 9 // 10


def test_peak_of_a_card_in_mebibytes(cards: Cards) -> None:
    assert memory_mb(SECOND) == 9000 / 2**20


def test_half_precision_is_that_of_the_card_and_not_of_the_current_one(cards: Cards) -> None:
    assert (cards.current, half_precision(SECOND)) == (0, "bf16")
    assert half_precision(torch.device("cuda:0")) == "fp16"
    assert cards.current == 0
    assert Precision("auto", SECOND).name == "bf16"


def test_cards_are_listed_after_the_cpu_and_named(cards: Cards) -> None:
    assert list(map(str, available_devices())) == ["cpu", "cuda:0", "cuda:1"]
    assert list(map(str, graphics_cards())) == ["cuda:0", "cuda:1"]
    assert device_name(SECOND) == "cuda:1 (card 1)"
    assert device_name(CPU).startswith("cpu (")


def test_an_accelerator_without_memory_of_its_own_is_listed_but_not_auto(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("mps"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    assert list(map(str, available_devices())) == ["cpu", "mps:0"]
    assert graphics_cards() == []
    assert not has_own_memory(torch.device("mps:0"))
    assert half_precision(torch.device("mps:0")) is None
    assert memory_mb(torch.device("mps:0")) > 1  # of this process
    assert device_name(torch.device("mps:0")) == "mps:0"


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_random_state_goes_to_the_device_it_came_from(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"0": torch.tensor([1]), "1": torch.tensor([2])}

    def key(which: tuple[torch.device, ...]) -> str:
        return str(which[0].index) if which else "0"

    def write(state: torch.Tensor, *which: torch.device) -> None:
        states[key(which)] = state

    module = SimpleNamespace(get_rng_state=lambda *which: states[key(which)], set_rng_state=write)
    monkeypatch.setattr(torch, "get_device_module", lambda which: module)
    one = torch.device(kind, 0 if kind == "mps" else 1)
    kept = random_state(one)
    assert kept is not None
    set_random_state(one, kept + 5)
    assert states["0" if kind == "mps" else "1"] == kept + 5
    set_random_state(one, None)  # a state that a CPU wrote
    assert states["0" if kind == "mps" else "1"] == kept + 5


def test_cpu_has_no_random_state_cache_or_queue_of_its_own() -> None:
    assert random_state(CPU) is None
    set_random_state(CPU, torch.tensor([1]))
    release_memory(CPU)
    synchronise(CPU)
