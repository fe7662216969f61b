"""A recipe of a shipped study as the config of one training run, for measurements."""

from pathlib import Path
from typing import Any

from data.sources import Split
from search.study import KnownSuggester, StudySpec, fill_leaves, load_spec, with_replacements
from search.trial import TrialConfig
from search.worker import open_data


def open_split(name: str, data: Path | None, cache: Path) -> Split:
    """The pairs of a study, or those in the folder `data`."""
    return open_data(_study(name, data), cache)


def config(name: str, recipe: str, data: Path | None, split: Split, **changes: Any) -> TrialConfig:
    """The known recipe of study `name` whose own name starts with `recipe`, with other settings on top."""
    spec = _study(name, data)
    known = next(known for known in spec.first if known.name.startswith(recipe))
    tree = fill_leaves(with_replacements(spec.recipe, known.recipe), KnownSuggester(known.values))
    tree["model"] = {"channels": split.channels, **tree["model"]}
    return TrialConfig.model_validate({**tree, "seed": 0, **changes})


def _study(name: str, data: Path | None) -> StudySpec:
    spec = load_spec(name)
    return spec.with_data(data, None, None) if data else spec
