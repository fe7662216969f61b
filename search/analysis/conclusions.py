"""Conclusions of a study in sentences: which trial won, by how much over which others, and how sure that is."""

from collections.abc import Mapping, Sequence

from search.analysis.ranking_table import PERCENT
from search.analysis.validation import INPUT, Gain, Validation
from search.database import Record
from search.statistics import ENOUGH_GROUPS, Estimate
from search.text import clock
from search.worker import inheritance_sentence

NAMES = {
    "kbnet_s": "a KBNet",
    "nafnet": "a NAFNet",
    "unet": "a U-Net",
    "dncnn": "a DnCNN",
    "srresnet": "an SRResNet",
    "pix2pix": "a Pix2Pix generator",
}


def headline(best: Record | None, validation: Validation | None) -> str:
    """One sentence: the winner, its score and its gain."""
    if best is None or best.psnr_db is None:
        return "No trial has finished yet."
    subject = (
        f"The best {'filter' if not best.parameters else 'model'} is {model_name(best)}{_size_sentence(best)}"
    )
    if validation is None:
        return f"{subject}: it restores at {best.psnr_db:.2f} dB."
    over_input = validation.gains[0].gain_db
    change = "better" if over_input.mean >= 0 else "worse"
    return (
        f"{subject}: it restores at {validation.psnr_db.mean:.2f} dB, "
        f"{abs(over_input.mean):.2f} dB {change} than the images came."
    )


def conclusion_sentences(
    trials: Sequence[Record], best: Record | None, validation: Validation | None, no_validation_reason: str
) -> list[str]:
    """Further sentences about the winner, the most important first."""
    if best is None:
        states = {trial.state for trial in trials}
        counts = ", ".join(f"{sum(t.state == s for t in trials)} {s}" for s in sorted(states))
        return [f"The study holds {len(trials)} trials: {counts}." if trials else "The study is empty."]
    said = [_origin_sentence(best), *filter(None, [inheritance_sentence(best.facts)])]
    if validation is not None:
        said += [_gain_sentence(gain, validation) for gain in validation.gains]
    said += _known_recipe_sentences(trials, best, validation)
    if validation is not None:
        said.append(_certainty_sentence(validation))
    elif no_validation_reason:
        said.append(
            f"Nothing was restored for this report, so there are no intervals: {no_validation_reason}"
        )
    return said


def model_name(trial: Record) -> str:
    """The trial's model for people: "a KBNet", "background division"."""
    model = trial.config.get("model", {})
    if "filter" in model:
        return str(model["filter"].get("kind", "")).replace("_", " ")
    kind = str(model.get("kind", "unknown"))
    inner = model.get("model")
    if isinstance(inner, Mapping):
        return f"{NAMES.get(inner['kind'], inner['kind'])} on luminance"
    return NAMES.get(kind, kind)


def estimate_text(found: Estimate, sign: bool = True) -> str:
    """ "+5.72 dB (95 %: 5.01 to 6.44)", without the bracket where there is no interval."""
    mean = f"{found.mean:+.2f} dB" if sign else f"{found.mean:.2f} dB"
    if found.low != found.low:
        return mean
    low, high = (f"{end:+.2f}" if sign else f"{end:.2f}" for end in (found.low, found.high))
    return f"{mean} ({PERCENT}: {low} to {high})"


def known_recipe_trials(trials: Sequence[Record], best: Record) -> list[Record]:
    """The trials of recipes that the study names, but for the winner."""
    return [trial for trial in trials if trial.label and trial.number != best.number]


def _size_sentence(best: Record) -> str:
    return f" with {best.parameters:,} parameters" if best.parameters else ""


def _origin_sentence(best: Record) -> str:
    origin = (
        f"the recipe {best.label!r} that the study names" if best.label else "a recipe that the search found"
    )
    length = f"{best.steps_done:,} steps in {clock(best.seconds)}" if best.steps_done else "nothing to train"
    return f"Trial {best.number}, {origin}; {length}."


def _gain_sentence(gain: Gain, validation: Validation) -> str:
    found = gain.gain_db
    if gain.over == INPUT:
        text = f"Over the input ({gain.psnr_db:.2f} dB): {estimate_text(found)}"
    else:
        text = f"Over {gain.over}, which has {gain.psnr_db:.2f} dB on the same images: {estimate_text(found)}"
    if found.high < 0:
        return text + f": {gain.over} {'is' if gain.over == INPUT else 'restores'} better."
    if found.low != found.low or found.one_sided:
        return text + "."
    return text + ", which is no clear difference: the interval holds 0."


def _known_recipe_sentences(
    trials: Sequence[Record], best: Record, validation: Validation | None
) -> list[str]:
    """The best other known recipe by its score in the search or at a rung, where it has none for single images."""
    known = known_recipe_trials(trials, best)
    done = [trial for trial in known if trial.psnr_db is not None]
    if done and best.psnr_db is not None:
        top = max(done, key=lambda trial: trial.psnr_db or 0.0)
        if validation and known_recipe_name(top) in {gain.over for gain in validation.gains}:
            return []
        return [
            f"Over the best other recipe that the study names ({top.label!r}, {top.psnr_db:.2f} dB): "
            f"{best.psnr_db - (top.psnr_db or 0.0):+.2f} dB. Its weights are gone, so there is no interval."
        ]
    begun = [trial for trial in known if trial.reported]
    if not begun:
        return []
    rung = max(max(trial.reported) for trial in begun)
    top = max(begun, key=lambda trial: trial.reported.get(rung, float("-inf")))
    others = (
        "The other recipe that the study names was"
        if len(known) == 1
        else f"None of the {len(known)} other recipes that the study names was"
    )
    said = (
        f"{others} {'not ' if len(known) == 1 else ''}trained to the end: at {rung} % of the steps "
        f"{'it' if len(known) == 1 else f'the best of them ({top.label!r})'} had {top.reported[rung]:.2f} dB"
    )
    return [said + (f", the winner {best.reported[rung]:.2f} dB." if rung in best.reported else ".")]


def known_recipe_name(known: Record) -> str:
    return f"the recipe {known.label!r}"


def _certainty_sentence(validation: Validation) -> str:
    part = f" of {validation.of_images}" if validation.images < validation.of_images else ""
    which = "They" if validation.searched == validation.images else f"{validation.searched} of them"
    said = (
        f"Means over {validation.images}{part} validation images, intervals by paired bootstrap over images. "
        f"{which} also chose the winner in the search, so expect a little less on others."
    )
    if not validation.conclusive:
        said += f" Fewer than {ENOUGH_GROUPS} images are too few for true {PERCENT}: take the intervals as a hint."
    return said
