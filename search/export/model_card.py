"""The model card beside exported weights: description, scores, training, and code to use the model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

from data.files import FULL_WHITE
from data.sources import Split
from search.database import FrozenTrial, Study, TrialFacts, TrialState, facts_of
from search.export.formats import check_sizes
from search.export.settings import white_level_of
from search.inference import ImageScore, mean_score
from search.text import code_markdown, plain_markdown
from search.worker import TrainedTrial, inheritance_sentence, repeat_sentences

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CURVE = "learning_curve.png"


def write_card(
    path: Path,
    study: Study,
    winner: TrainedTrial,
    split: Split,
    scores: list[ImageScore],
    inputs: list[ImageScore],
    settings: dict[str, Any],
) -> None:
    """Write the card and its learning-curve picture into the folder of `path`."""
    trial, config = winner.trial, winner.config
    trials = study.get_trials(deepcopy=False)
    restored, degraded = mean_score(scores, 0, 0.0), mean_score(inputs, 0, 0.0)
    gains = sorted(ours.psnr_db - theirs.psnr_db for ours, theirs in zip(scores, inputs, strict=True))
    facts = facts_of(trial)
    sections = [
        f"# {plain_markdown(study.study_name)}: {config.model.kind}, trial {trial.number}",
        f"Restores {'gray' if config.model.channels == 1 else 'colour'} images. {_cost(facts)}",
        *([] if trial.value is not None else [f"**This trial is {winner.standing}.**"]),
        "![degraded, restored, clean, error](sample.png)",
        "## Scores",
        f"{len(scores)} validation pairs that training never saw (but the choice of this recipe did), "
        "8-bit, mean over images.",
        card_table(
            ["", "PSNR (dB)", "SSIM", "MAE (0 to 1)"],
            [
                ["degraded input", *_numbers(degraded.psnr_db, degraded.ssim, degraded.mae)],
                ["restored", *_numbers(restored.psnr_db, restored.ssim, restored.mae)],
            ],
        ),
        f"Gain per image: worst {gains[0]:+.2f} dB, median {gains[len(gains) // 2]:+.2f} dB, best {gains[-1]:+.2f} dB.",
        "## Against the recipes known beforehand",
        _known_recipes(trials, winner),
        *_confirmed(study),
        "## Training",
        f"Data: {plain_markdown(split.note)} (fingerprint {split.fingerprint}). {_length(facts)} in "
        f"{facts.seconds:.0f} s on {plain_markdown(str(facts.device))}, seed {facts.seed}, versions "
        f"{code_markdown(json.dumps(facts.versions))}. "
        f"The study holds {len(trials)} trials: {_count(trials, TrialState.COMPLETE)} complete, "
        f"{_count(trials, TrialState.PRUNED)} pruned, {_count(trials, TrialState.FAIL)} failed.",
        *filter(None, [inheritance_sentence(facts)]),
        *_draw_curves(path.with_name(CURVE), trials, trial),
        "Settings that the search chose:",
        card_table(
            ["setting", "value"],
            [[code_markdown(name), code_markdown(str(value))] for name, value in trial.params.items()],
        ),
        "## Use",
        "From Python, with this program installed:",
        _code(
            "from pathlib import Path",
            "",
            "import torch",
            "",
            "from data.files import decode_image, to_tensor, with_channels, write_png",
            "from search.export import load_model",
            "from search.inference import to_codes",
            "",
            'model = load_model("FOLDER OF THIS FILE")',
            f'degraded = to_tensor(with_channels(decode_image(Path("scan.png")), {config.model.channels}))',
            "with torch.inference_mode():",
            "    restored = model(degraded[None])[0]",
            'write_png("restored.png", to_codes(restored))',
        ),
        *_white(settings),
        *(_use_elsewhere(settings) if settings["files"] else _use_of_a_filter()),
        *(_files(settings) if settings["files"] else []),
    ]
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _cost(facts: TrialFacts) -> str:
    if not facts.parameters:
        return "A classical filter: it has settings, and nothing in it is learnt."
    return f"{facts.parameters:,} parameters, {facts.gmacs_at_256:.2f} G multiply-adds for 256 x 256 pixels."


def _length(facts: TrialFacts) -> str:
    return f"{facts.steps_done:,} steps" if facts.steps_done else "Scored as it is, without training,"


def _white(settings: Mapping[str, Any]) -> list[str]:
    """What else than the largest value of 16 bits stands for 1.0."""
    white = white_level_of(settings)
    if white == FULL_WHITE:
        return []
    return [
        f"It was trained with 16-bit files whose white is {white}: divide their values by that, not by 65535."
    ]


def _use_elsewhere(settings: Mapping[str, Any]) -> list[str]:
    if "onnx" not in settings["files"]:
        return []
    channels = settings["input"]["channels"]
    return [
        "With onnxruntime and Pillow alone; several images of one size can go together:",
        _code(
            "import numpy, onnxruntime",
            "from PIL import Image",
            "",
            f'pixels = numpy.asarray(Image.open("scan.png").convert("{"RGB" if channels == 3 else "L"}"))',
            "image = numpy.moveaxis(numpy.atleast_3d(pixels), 2, 0)[None].astype(numpy.float32) / 255",
            'session = onnxruntime.InferenceSession("model.onnx")',
            "height, width = image.shape[2:]",
            f"multiple = {settings['input']['size_multiple']}",
            "padding = ((0, 0), (0, 0), (0, -height % multiple), (0, -width % multiple))",
            '(restored,) = session.run(None, {"degraded": numpy.pad(image, padding)})',
            "restored = restored[..., :height, :width].clip(0, 1)",
            "codes = numpy.moveaxis((restored[0] * 255).round().astype(numpy.uint8), 0, 2)",
            'Image.fromarray(codes.squeeze()).save("restored.png")',
        ),
    ]


def _files(settings: Mapping[str, Any]) -> list[str]:
    """The section on the files: their contents, and the tools that read them."""
    prefix = ", each behind `model.`" if settings["model"]["kind"] == "luminance" else ""
    known = settings["spandrel"]
    others = (
        f"spandrel, and so chaiNNer and ComfyUI, open it as {known}."
        if known
        else "spandrel, and so chaiNNer and ComfyUI, do not know this architecture."
    )
    return [
        "## Files",
        f"`model.safetensors` has the published parameter names of the architecture{prefix}; `config.json` rebuilds "
        f"the model. {others}",
        "\n".join(f"- {line}" for line in file_notes(settings)),
        "Whoever opens a safetensors, JSON or ONNX file runs nothing that is in it. torch unpickles parts of a .pt2 "
        "file, so open only one from a person you trust; the program `restore` opens none."
        if "pt2" in settings["files"]
        else "Nothing in these files is unpickled when they are opened.",
    ]


def file_notes(settings: Mapping[str, Any]) -> list[str]:
    """A sentence for each file: its number format, and how far it differs from torch."""
    files = settings["files"]
    if not files:
        return ["a filter has no weights and no graph: `config.json` is all of it"]
    notes = []
    if half := settings["half"]:
        loss = half["psnr_db"] - half["psnr_db_of_float32"]
        notes.append(
            "`model.safetensors`: float16, loaded as float32 for computing; "
            f"{half['psnr_db']:.3f} dB, {loss:+.4f} dB to float32 weights, largest difference "
            f"{half['largest_difference_to_float32']:.1e} of 1 on the first validation image"
        )
    else:
        notes.append("`model.safetensors`: float32, loaded again bit for bit")
    multiple = settings["input"]["size_multiple"]
    sizes = ", ".join(dict.fromkeys(f"{height} x {width}" for height, width in check_sizes(multiple)))
    for name, what in (("onnx", "`model.onnx`"), ("pt2", "`model.pt2`")):
        if name in files:
            apart = files[name]["largest_difference_to_torch"]
            notes.append(f"{what}: differs from torch by at most {apart:.1e} of 1 at {sizes} (padded)")
    if "pt2" in files:
        notes[-1] += (
            f"; `torch.export.load` of torch {files['pt2']['torch']} or later opens it, sides are multiples of "
            f"{multiple}, at least {files['pt2']['smallest_side']}"
        )
    if "coreml" in files:
        made = files["coreml"]
        notes.append(
            f"`model.mlpackage`: a float16 mlprogram for images of {made['side']} x {made['side']}, converted by "
            f"coremltools {made['coremltools']} for compute units {made['compute_units']} (CPU, GPU, Neural Engine); "
            "not compared with torch: it runs only on a Mac"
        )
    return notes


def _use_of_a_filter() -> list[str]:
    return [
        "`config.json` has the settings, from which the filter is rebuilt: there are no weights and no graph. It is "
        "computed by OpenCV and scikit-image, on the CPU; `models/filters.py` of this program says how, setting by "
        "setting."
    ]


def _known_recipes(trials: list[FrozenTrial], winner: TrainedTrial) -> str:
    best = winner.trial
    known = [(t, facts) for t in trials if (facts := facts_of(t)).label is not None]
    if not known:
        return "The study names none."
    rows = [
        [
            plain_markdown(str(facts.label)),
            f"{t.value:.2f}"
            if t.state == TrialState.COMPLETE
            else plain_markdown(facts.ended or t.state.name.lower()),
            f"{facts.steps_done:,}",
            f"{facts.seconds:.0f}",
        ]
        for t, facts in known
    ]
    rows.append(
        [
            "**this model**",
            f"**{winner.psnr_db:.2f}**",
            f"{facts_of(best).steps_done:,}",
            f"{facts_of(best).seconds:,.0f}",
        ]
    )
    note = "Scored on the validation images that the search uses."
    if ladder := {step: score for step, score in best.intermediate_values.items() if step < 100}:
        on_the_way = ", ".join(f"{score:.2f} dB at {step} %" for step, score in ladder.items())
        note += f" A recipe that was beaten stopped there; on its way up this model had {on_the_way}."
    return note + "\n\n" + card_table(["recipe", "PSNR (dB)", "steps", "seconds"], rows)


def _confirmed(study: Study) -> list[str]:
    if not (lines := repeat_sentences(study)):
        return []
    lines = [plain_markdown(line) for line in lines]
    return ["## Trained again", lines[0] + "\n\n" + "\n".join(f"- {line}" for line in lines[1:])]


def _draw_curves(path: Path, trials: list[FrozenTrial], best: FrozenTrial) -> list[str]:
    """The picture, and the text that shows it; none of both where nothing was trained."""
    if not facts_of(best).steps_done:
        return []
    figure, axes = plt.subplots(figsize=(7, 4), dpi=120, layout="constrained")
    for trial in trials:
        if rungs := facts_of(trial).rungs:
            ours = trial.number == best.number
            axes.plot(
                [score.seconds for score in rungs],
                [score.psnr_db for score in rungs],
                color="tab:blue" if ours else "0.75",
                linewidth=2 if ours else 1,
                marker="o",
                markersize=3 if ours else 1.5,
                label=f"trial {trial.number} (exported)" if ours else None,
                zorder=2 if ours else 1,
            )
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("PSNR at the rungs (dB)")
    axes.set_title("Learning curves; other trials in gray", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path)
    plt.close(figure)
    return [f"![learning curves]({path.name})"]


def _numbers(psnr_db: float, ssim: float, mae: float) -> list[str]:
    return [f"{psnr_db:.2f}", f"{ssim:.4f}", f"{mae:.4f}"]


def _count(trials: list[FrozenTrial], state: TrialState) -> int:
    return sum(trial.state == state for trial in trials)


def card_table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _code(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])
