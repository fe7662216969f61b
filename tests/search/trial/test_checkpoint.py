"""States and weights on disk: whole or not at all."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models import DnCNNConfig
from search.trial import checkpoint

STATE = {"past": "abc", "step": 3, "model": {"weight": torch.arange(1000.0)}}


class Surprise:
    """Something that a pickle must not make when it is only looked at."""


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoint.save_state(tmp_path, STATE)
    state = checkpoint.load_state(tmp_path)
    assert state is not None
    assert state["step"] == 3
    assert torch.equal(state["model"]["weight"], torch.arange(1000.0))


def test_no_state_counts_as_none(tmp_path: Path) -> None:
    assert checkpoint.load_state(tmp_path) is None
    assert checkpoint.load_state(tmp_path / "missing") is None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_state_counts_as_none(share: float, tmp_path: Path) -> None:
    checkpoint.save_state(tmp_path, STATE)
    path = tmp_path / checkpoint.STATE
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert checkpoint.load_state(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        b"not a checkpoint at all\n",
        b"\x00" * 5000,
        b"PK\x03\x04" + b"\x00" * 100,
        bytes(range(256)) * 20,
        b"{}",
        pickle.dumps(STATE["step"]),
        pickle.dumps([1, 2, 3]),
        pickle.dumps(Surprise()),
    ],
    ids=["text", "zeros", "zip-head", "bytes", "json", "number", "list", "object"],
)
def test_foreign_file_counts_as_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / checkpoint.STATE).write_bytes(content)
    assert checkpoint.load_state(tmp_path) is None


def test_torch_file_of_another_kind_counts_as_none(tmp_path: Path) -> None:
    for thing in (torch.zeros(3), [1, 2], {"step": 3}, Surprise()):
        torch.save(thing, tmp_path / checkpoint.STATE)
        assert checkpoint.load_state(tmp_path) is None


def test_folder_in_the_place_of_a_state_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / checkpoint.STATE).mkdir()
    assert checkpoint.load_state(tmp_path) is None


def test_save_that_breaks_off_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save_state(tmp_path, STATE)

    def half(thing: object, path: Path) -> None:
        Path(path).write_bytes(b"half a sta")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save_state(tmp_path, {**STATE, "step": 4})
    monkeypatch.undo()
    state = checkpoint.load_state(tmp_path)
    assert state is not None
    assert state["step"] == 3


def test_weights_that_break_off_leave_the_weights_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / checkpoint.BEST_WEIGHTS
    model = torch.nn.Linear(3, 2)
    checkpoint.save_weights(path, model)
    before = path.read_bytes()

    write_bytes = Path.write_bytes

    def half(self: Path, content: bytes) -> int:
        write_bytes(self, content[:20])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save_weights(path, torch.nn.Linear(3, 2))
    assert path.read_bytes() == before


def test_dropped_state_is_gone_and_dropping_twice_is_no_error(tmp_path: Path) -> None:
    checkpoint.save_state(tmp_path, STATE)
    checkpoint.drop_state(tmp_path)
    checkpoint.drop_state(tmp_path)
    assert checkpoint.load_state(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_weights_have_the_names_of_the_model_and_load_into_another(tmp_path: Path) -> None:
    config = DnCNNConfig(channels=1, width=4, layers=3, batch_norm=True)
    model, other = config.build(), config.build()
    checkpoint.save_weights(tmp_path / "w.safetensors", model)
    assert load_file(tmp_path / "w.safetensors").keys() == model.state_dict().keys()
    checkpoint.load_weights(tmp_path / "w.safetensors", other)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_weights_of_another_shape_are_not_loaded(tmp_path: Path) -> None:
    checkpoint.save_weights(tmp_path / "w.safetensors", DnCNNConfig(channels=1, width=4, layers=3).build())
    with pytest.raises(RuntimeError, match="size mismatch"):
        checkpoint.load_weights(
            tmp_path / "w.safetensors", DnCNNConfig(channels=1, width=5, layers=3).build()
        )


def test_fingerprints_of_different_configs_differ() -> None:
    assert checkpoint.config_fingerprint('{"lr": 0.1}') == checkpoint.config_fingerprint('{"lr": 0.1}')
    assert checkpoint.config_fingerprint('{"lr": 0.1}') != checkpoint.config_fingerprint('{"lr": 0.2}')
