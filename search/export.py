"""Best trial -> weights, ONNX, settings and a model card; everything is loaded again and compared."""

import importlib.metadata
import json
import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data import Split
from models.cost import count_parameters
from models.padding import pad_to_multiple
from search import card, exported, pictures, storage, winners
from search.errors import UserError
from search.exported import FORMAT, ONNX, SETTINGS, WEIGHTS
from search.limits import LimitsConfig
from search.storage import FrozenTrial
from search.trial import checkpoint
from search.trial.config import TrialConfig
from search.trial.evaluate import ImageScore, evaluate, mean_score, score_image, spread
from search.trial.precision import Precision

CARD = "README.md"
SCORE_TOLERANCE_DB = 0.01
ONNX_TOLERANCE = 1e-4  # largest difference to torch, in units of image intensity
ONNX_CHECK_SIZES = ((33, 47), (17, 23), (61, 90))
OPSET = 20
CPU = torch.device("cpu")


def best(
    name: str,
    url: str,
    out: Path,
    target: Path,
    say: Callable[[str], None] = print,
    limits: LimitsConfig | None = None,
) -> Path:
    """Export the best complete trial of study `name` within `limits` into the folder `target`; the folder.

    Raises `UserError` if there is none, if its weights or data are gone or changed, if it does not
    reach its stored score again, or if `target` holds something else.
    """
    study = storage.load_study(name, url)
    winner = winners.load(study, out, limits)
    trial, config, model = winner.trial, winner.config, winner.model
    _refuse_foreign_folder(target)
    split = config.data.open(seed=0, cache=out)
    say(f"trial {trial.number}: scoring {len(split.val)} validation pairs again")
    scores, inputs = _validate(model, split, config, trial)

    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    difference = None
    if count_parameters(model):
        checkpoint.save_weights(partial / WEIGHTS, model)
        difference = _save_onnx(partial / ONNX, model, config.model.channels)
    settings = _settings(config, model, name, trial, difference)
    (partial / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    _compare_reloaded(partial, model, split)
    pictures.save_strip(partial / "sample.png", config.model, winner.weights, split.val, CPU)
    card.write(partial / CARD, study, trial, config, split, scores, inputs, settings)
    _replace(partial, target)
    total = mean_score(scores, step=0, seconds=0.0)
    gain = total.psnr_db - mean_score(inputs, step=0, seconds=0.0).psnr_db
    files, note = SETTINGS, "a filter has no weights"
    if difference is not None:
        files = f"{WEIGHTS}, {ONNX}"
        note = f"ONNX differs from torch by at most {difference:.1e} at {len(ONNX_CHECK_SIZES)} odd sizes"
    say(f"{target}: {total.psnr_db:.2f} dB ({gain:+.2f} over the input), SSIM {total.ssim:.4f}; {files}")
    say(f"{note}; read {CARD}")
    return target


def load_model(folder: Path | str) -> nn.Module:
    """An exported model, ready to restore: (N, C, H, W) float32 in [0, 1] in and out, any height and width.

    Reads `config.json` and, unless the model is a filter, `model.safetensors`; nothing is unpickled.
    Raises `UserError` for a folder that is no export.
    """
    return exported.load(Path(folder)).model


def _validate(
    model: nn.Module, split: Split, config: TrialConfig, trial: FrozenTrial
) -> tuple[list[ImageScore], list[ImageScore]]:
    """Scores of all validation images, restored and degraded; refuses a model that misses its stored score."""
    winners.refuse_other_images(trial, split)
    pairs = [split.val.whole(index) for index in range(len(split.val))]
    scores = evaluate(model, pairs, Precision("fp32", CPU))
    judged = [scores[index] for index in spread(split.val, config.val_megapixels)]
    again = mean_score(judged, step=0, seconds=0.0).psnr_db
    if not abs(again - float(trial.value or 0)) <= SCORE_TOLERANCE_DB:
        raise UserError(
            f"trial {trial.number} scores {again:.3f} dB now and {trial.value:.3f} dB when it was trained; not exported"
        )
    return scores, [score_image(pair.degraded, pair.clean) for pair in pairs]


class _Body(nn.Module):
    """The part of a model that goes into a graph: sizes are multiples already."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, degraded: Tensor) -> Tensor:
        restored: Tensor = self.model.body(degraded)  # type: ignore[operator]
        return restored


def _save_onnx(path: Path, model: nn.Module, channels: int) -> float:
    """Write the graph with dynamic height and width; the largest difference to torch at odd sizes."""
    multiple = int(model.size_multiple)  # type: ignore[arg-type]
    example = torch.rand(1, channels, 4 * multiple, 6 * multiple)
    height, width = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    # The exporter misses torchvision, which nothing here uses, and its libraries use deprecated names.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Body(model),
            (example,),
            input_names=["degraded"],
            output_names=["restored"],
            dynamic_shapes={"degraded": {2: height, 3: width}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path))
    onnx.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest = 0.0
    for size in ONNX_CHECK_SIZES:
        image = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = model(image)
        padded = pad_to_multiple(image, multiple)
        (found,) = session.run(None, {"degraded": padded.numpy()})
        cropped: NDArray[np.float32] = found[..., : size[0], : size[1]]
        largest = max(largest, float(np.abs(cropped - expected.numpy()).max()))
    if not largest <= ONNX_TOLERANCE:
        raise UserError(
            f"the ONNX graph differs from torch by {largest:.1e} (allowed: {ONNX_TOLERANCE}); not exported"
        )
    return largest


def _settings(
    config: TrialConfig, model: nn.Module, name: str, trial: FrozenTrial, difference: float | None
) -> dict[str, Any]:
    """What a program needs to use the files, and where they come from. `onnx` is null where there is no graph."""
    graph = None if difference is None else {"opset": OPSET, "largest_difference_to_torch": difference}
    return {
        "format": FORMAT,
        "model": config.model.model_dump(mode="json"),
        "input": {
            "name": "degraded",
            "layout": "NCHW",
            "channels": config.model.channels,
            "colour_order": "RGB" if config.model.channels == 3 else "gray",
            "dtype": "float32",
            "range": [0.0, 1.0],
            "size_multiple": int(model.size_multiple),  # type: ignore[arg-type]
            "padding": "zeros at the right and at the bottom up to a multiple, cropped from the output",
        },
        "output": {"name": "restored", "range": "about [0, 1]: clip before saving"},
        "onnx": graph,
        "study": name,
        "trial": trial.number,
        "psnr_db": trial.value,
        "recipe": config.model_dump(mode="json"),
        "restune": importlib.metadata.version("restune"),
    }


def _compare_reloaded(folder: Path, model: nn.Module, split: Split) -> None:
    """The files give the same pixels as the model they came from."""
    image = split.val.whole(0).degraded[None]
    with torch.inference_mode():
        assert torch.equal(load_model(folder)(image), model(image)), (
            "the exported weights restore differently"
        )


def _refuse_foreign_folder(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: is a file; --to names a folder")
    if target.is_dir() and any(target.iterdir()) and not (target / SETTINGS).is_file():
        raise UserError(f"{target}: holds other files; --to names a new or an empty folder")
    storage.make_writable(target.parent)


def _replace(partial: Path, target: Path) -> None:
    """Put the finished folder in place of an earlier export."""
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)
