"""Export of a trial: files that other programs load, settings and a model card; all are loaded again and compared."""

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.sources import Split
from models import count_parameters
from search.database import Study, facts_of, load_study, make_writable, study_folder
from search.errors import UserError
from search.export.formats import FILES, USUAL, round_to_half, spandrel_name, write_formats
from search.export.load import load_exported
from search.export.model_card import file_notes, write_card
from search.export.settings import FORMAT, SETTINGS, WEIGHTS, read_export_settings
from search.inference import ImageScore, Precision, mean_score, score_image, score_pairs
from search.study import LimitsConfig
from search.worker import (
    TrainedTrial,
    load_best,
    load_numbered,
    load_top,
    open_images,
    refuse_other_images,
    save_strip,
)

CARD = "README.md"
SCORE_TOLERANCE_DB = 0.01
CPU = torch.device("cpu")
Say = Callable[[str], None]


@dataclass(frozen=True)
class ExportChoice:
    """Selection of the trials to export; by default the best complete one."""

    trial: int | None = None
    top: int | None = None
    limits: LimitsConfig | None = None


@dataclass(frozen=True)
class ExportOptions:
    """Settings of an export: its file formats, float16 weights, and replacing a better export."""

    formats: tuple[str, ...] = USUAL
    half: bool = False
    """Weights stored as float16."""
    force: bool = False
    """Replace an export of the same study and data that has a higher score."""
    data: Path | None = None
    """Where the pairs are now, if they were moved."""


def export_trials(
    name: str,
    url: str,
    out: Path,
    to: Path | None = None,
    choice: ExportChoice | None = None,
    options: ExportOptions | None = None,
    say: Say = print,
) -> list[Path]:
    """Export trials of study `name` into the folder `to`, or into its subfolders 1, 2, ... if several; the folders.

    Raises `UserError` if there is no such trial, if its weights or data are gone or changed, if it does
    not reach its stored score again, or if a folder holds something else, or something better.
    """
    choice, options = choice or ExportChoice(), options or ExportOptions()
    study = load_study(name, url)
    folder = study_folder(out, study)
    if choice.top is None:
        if choice.trial is None:
            winner = load_best(study, out, choice.limits)
        else:
            winner = load_numbered(study, choice.trial, out)
        targets = {to or folder / "export": winner}
    else:
        if choice.top < 1:
            raise UserError(f"--top {choice.top}: allowed: 1 or more")
        found = load_top(study, choice.top, out, choice.limits)
        if len(found) < choice.top:
            say(f"{len(found)} instead of {choice.top}: no more complete trials have their weights on disk")
        targets = {
            to / str(rank) if to else folder / f"export-{rank}": winner
            for rank, winner in enumerate(found, 1)
        }
    for target, winner in targets.items():
        _refuse_folder(target, winner, name, options)
    for target, winner in targets.items():
        _export(study, winner, out, target, options, say)
    return list(targets)


def _export(
    study: Study, winner: TrainedTrial, out: Path, target: Path, options: ExportOptions, say: Say
) -> None:
    trial, config, model = winner.trial, winner.config, winner.model
    split = open_images(study, config, out, options.data)
    say(f"trial {trial.number} ({winner.standing}): scoring {len(split.val)} validation pairs again")
    scores, inputs = _validate(winner, split)
    half = _halve(model, split, scores) if options.half else None
    if half:
        scores = half.pop("scores")

    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        files = {}
        weights = winner.weights
        if count_parameters(model):
            channels = config.model.channels
            about = {
                "name": study.study_name,
                "trial": trial.number,
                "psnr_db": f"{mean_score(scores, 0, 0.0).psnr_db:.3f}",
                "input_range": "0 to 1",
                "output_range": "about 0 to 1: clip before saving",
                "colour_order": "RGB" if channels == 3 else "gray",
                "restune": importlib.metadata.version("restune"),
            }
            files = write_formats(partial, model, channels, options.formats, half=options.half, about=about)
            weights = partial / WEIGHTS
        settings = _settings(winner, study.study_name, split, files, half)
        (partial / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        _compare_reloaded(partial, model, split)
        save_strip(partial / "sample.png", config.model, weights, split.val, CPU)
        write_card(partial / CARD, study, winner, split, scores, inputs, settings)
        _replace(partial, target)
    except UserError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _report(target, scores, inputs, settings, say)


def _report(
    target: Path, scores: list[ImageScore], inputs: list[ImageScore], settings: dict[str, Any], say: Say
) -> None:
    total = mean_score(scores, step=0, seconds=0.0)
    gain = total.psnr_db - mean_score(inputs, step=0, seconds=0.0).psnr_db
    files = [FILES[name] for name in settings["files"]] or [SETTINGS]
    score = f"{total.psnr_db:.2f} dB ({gain:+.2f} over the input), SSIM {total.ssim:.4f}"
    say(f"{target}: {score}; {', '.join(files)}")
    for line in file_notes(settings):
        say(line.replace("`", ""))
    say(f"read {CARD}")


def load_model(folder: Path | str) -> nn.Module:
    """An exported model, ready to restore: (N, C, H, W) float32 in [0, 1] in and out, any height and width.

    Reads `config.json` and, unless the model is a filter, `model.safetensors`; nothing is unpickled.
    Raises `UserError` for a folder that is no export.
    """
    return load_exported(Path(folder)).model


def _validate(winner: TrainedTrial, split: Split) -> tuple[list[ImageScore], list[ImageScore]]:
    """Scores of all validation images, restored and degraded; refuses a model that misses its stored score."""
    refuse_other_images(winner.trial, split)
    pairs = [split.val.whole(index) for index in range(len(split.val))]
    scores = score_pairs(winner.model, pairs, Precision("fp32", CPU))
    scored = [scores[index] for index in split.val.representative(winner.megapixels)]
    again = mean_score(scored, step=0, seconds=0.0).psnr_db
    if not abs(again - winner.psnr_db) <= SCORE_TOLERANCE_DB:
        raise UserError(
            f"trial {winner.trial.number} scores {again:.3f} dB now and {winner.psnr_db:.3f} dB when it was "
            "trained; not exported"
        )
    return scores, [score_image(pair.degraded, pair.clean) for pair in pairs]


def _halve(model: nn.Module, split: Split, before: list[ImageScore]) -> dict[str, Any]:
    """Round the weights of `model` to float16 (it still computes in float32); its scores, and the loss in quality."""
    if not count_parameters(model):
        raise UserError("--half: a filter has no weights to store")
    image = split.val.whole(0).degraded[None]
    with torch.inference_mode():
        exact = model(image)
    round_to_half(model)
    with torch.inference_mode():
        apart = float((model(image) - exact).abs().max())
    pairs = [split.val.whole(index) for index in range(len(split.val))]
    scores = score_pairs(model, pairs, Precision("fp32", CPU))
    return {
        "scores": scores,
        "psnr_db": mean_score(scores, 0, 0.0).psnr_db,
        "psnr_db_of_float32": mean_score(before, 0, 0.0).psnr_db,
        "largest_difference_to_float32": apart,
    }


def _settings(
    winner: TrainedTrial,
    name: str,
    split: Split,
    files: dict[str, dict[str, Any]],
    half: dict[str, Any] | None,
) -> dict[str, Any]:
    """Contents of `config.json`: all that a program needs to use the files, and their origin."""
    config = winner.config
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
            "white_level": split.white_level,
            "size_multiple": int(winner.model.size_multiple),  # type: ignore[arg-type]
            "padding": "zeros at the right and at the bottom up to a multiple, cropped from the output",
        },
        "output": {"name": "restored", "range": "about [0, 1]: clip before saving"},
        "onnx": files.get("onnx"),
        "files": files,
        "half": half,
        "spandrel": spandrel_name(config.model),
        "study": name,
        "data": split.fingerprint,
        "trial": winner.trial.number,
        "standing": winner.standing,
        "psnr_db": winner.psnr_db,
        "recipe": config.model_dump(mode="json"),
        "restune": importlib.metadata.version("restune"),
    }


def _compare_reloaded(folder: Path, model: nn.Module, split: Split) -> None:
    """Load the files again; fails unless they restore the same pixels as the model that they were written from."""
    image = split.val.whole(0).degraded[None]
    with torch.inference_mode():
        assert torch.equal(load_model(folder)(image), model(image)), (
            "the exported weights restore differently"
        )


def _refuse_folder(target: Path, winner: TrainedTrial, name: str, options: ExportOptions) -> None:
    """Raises `UserError` if `target` holds anything but an export of this study, or a better one."""
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: is a file; --to names a folder")
    if target.is_dir() and any(target.iterdir()):
        try:
            earlier = read_export_settings(target)
        except UserError:
            raise UserError(f"{target}: holds other files; --to names a new or an empty folder") from None
        score, trial = earlier.get("psnr_db"), winner.trial
        same = (
            earlier.get("study") == name and earlier.get("data", facts_of(trial).data) == facts_of(trial).data
        )
        if same and not options.force and isinstance(score, float) and score > winner.psnr_db:
            raise UserError(
                f"{target}: holds trial {earlier.get('trial')} with {score:.3f} dB, better than trial {trial.number} "
                f"with {winner.psnr_db:.3f} dB; --force replaces it, --to names another folder"
            )
    make_writable(target.parent)


def _replace(partial: Path, target: Path) -> None:
    """Put the finished folder in place of an earlier export."""
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)
