"""Training that starts from weights of a file, and every way in which that file can be wrong."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from models import DnCNNConfig, KBNetSConfig, ModelConfig, UNetConfig
from search.trial import WITH_FILES, InitialConfig, Stopped, TrialConfig, save_weights
from search.trial.training import TrialResult

Run = Callable[..., TrialResult]
SMALL, OTHER = DnCNNConfig(channels=1, width=4, layers=4), DnCNNConfig(channels=1, width=6, layers=4)


def saved(config: DnCNNConfig, path: Path) -> Path:
    torch.manual_seed(5)
    if path.suffix == ".pth":
        torch.save(config.build().state_dict(), path)
    else:
        save_weights(path, config.build())
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_training_starts_from_the_weights_of_the_file(
    suffix: str, config: Callable[..., TrialConfig], run: Run, tmp_path: Path
) -> None:
    file = saved(SMALL, tmp_path / f"start{suffix}")
    result = run(config(steps=0, initial={"file": str(file)}), tmp_path / "trial")
    torch.manual_seed(5)
    expected = SMALL.build().state_dict()
    found = load_file(result.weights)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_resumed_trial_goes_on_from_its_own_state(
    config: Callable[..., TrialConfig], run: Run, record: Any, tmp_path: Path
) -> None:
    trial = config(initial={"file": str(saved(SMALL, tmp_path / "start.safetensors"))})
    expected = run(trial, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(trial, tmp_path / "stopped", record(stop_after=3))
    (tmp_path / "start.safetensors").unlink()
    assert run(trial, tmp_path / "stopped").image_scores == expected.image_scores


def test_matching_takes_what_agrees_and_leaves_the_rest(tmp_path: Path) -> None:
    model = DnCNNConfig(channels=1, width=4, layers=6).build()
    untouched = model.state_dict()["model.10.weight"].clone()
    file = saved(SMALL, tmp_path / "start.safetensors")
    InitialConfig(file=file, match="matching").load_into(model)
    found, given = model.state_dict(), load_file(file)
    assert torch.equal(found["model.0.weight"], given["model.0.weight"])
    assert torch.equal(found["model.4.weight"], given["model.4.weight"])
    assert torch.equal(found["model.10.weight"], untouched)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (SMALL, DnCNNConfig(channels=1, width=7, layers=4)),
        (
            UNetConfig(channels=1, width=4, levels=2, blocks=1),
            UNetConfig(channels=1, width=10, levels=2, blocks=1),
        ),
    ],
)
def test_wider_network_begins_as_what_the_small_one_computes(
    small: ModelConfig, large: ModelConfig, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    expected, model = small.build(), large.build()
    save_weights(tmp_path / "small.safetensors", expected)
    InitialConfig(file=tmp_path / "small.safetensors", match="overlap").load_into(model)
    images = torch.rand(2, 1, 17, 23)
    torch.testing.assert_close(model(images), expected(images), rtol=1e-5, atol=1e-6)


def test_overlap_leaves_the_new_channels_as_they_were(tmp_path: Path) -> None:
    model = DnCNNConfig(channels=1, width=6, layers=4).build()
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    file = saved(SMALL, tmp_path / "start.safetensors")
    InitialConfig(file=file, match="overlap").load_into(model)
    found, given = model.state_dict()["model.2.weight"], load_file(file)["model.2.weight"]
    assert torch.equal(found[:4, :4], given)
    assert not found[:4, 4:].any()
    assert torch.equal(found[4:], fresh["model.2.weight"][4:])


def test_kernels_of_another_size_do_not_overlap(tmp_path: Path) -> None:
    shape = {"encoder_blocks": (1,), "middle_blocks": 1, "decoder_blocks": (1,), "channels": 1, "width": 8}
    light, heavy = (KBNetSConfig.model_validate({**shape, "lightweight": on}) for on in (True, False))
    save_weights(tmp_path / "light.safetensors", light.build())
    model = heavy.build()
    before = model.state_dict()["middle_blks.0.conv11.1.weight"].clone()
    InitialConfig(file=tmp_path / "light.safetensors", match="overlap").load_into(model)
    assert torch.equal(model.state_dict()["middle_blks.0.conv11.1.weight"], before)
    with pytest.raises(ValueError, match="has no weights that overlap with those of this model"):
        InitialConfig(file=tmp_path / "light.safetensors", match="overlap").load_into(SMALL.build())


def test_another_model_is_refused_in_words(tmp_path: Path) -> None:
    file = saved(OTHER, tmp_path / "start.safetensors")
    with pytest.raises(
        ValueError, match=r"is of another model: 7 weights differ in name or shape, as model\.0\.bias"
    ):
        InitialConfig(file=file).load_into(SMALL.build())
    gray = saved(SMALL, tmp_path / "gray.safetensors")
    colour = DnCNNConfig(channels=3, width=8, layers=3).build()
    with pytest.raises(ValueError, match="has no weights of the names and shapes of this model"):
        InitialConfig(file=gray, match="matching").load_into(colour)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.safetensors", None, "cannot be read: No such file"),
        ("text.safetensors", b"dear diary", "holds no weights"),
        ("text.pth", b"dear diary", "holds no weights"),
        ("empty.pth", b"", "holds no weights"),
    ],
)
def test_file_that_cannot_be_used_is_found_at_load(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValidationError, match=message):
        InitialConfig.model_validate({"file": tmp_path / name}, context=WITH_FILES)


def test_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    file = saved(SMALL, tmp_path / "start.safetensors")
    right = hashlib.sha256(file.read_bytes()).hexdigest()
    assert InitialConfig(file=file, sha256=right).read()
    with pytest.raises(ValueError, match="is another file than the one with this sha256"):
        InitialConfig(file=file, sha256="0" * 64).read()


@pytest.mark.parametrize("settings", [{}, {"file": "a.pth", "study": "kbnet"}])
def test_exactly_one_source_is_named(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="name either a file or a study"):
        InitialConfig.model_validate(settings)
