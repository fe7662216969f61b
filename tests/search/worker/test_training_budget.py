"""Length of a training that fits into the time of a study, and the number of rungs for it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from search.database import default_storage_url, open_study
from search.scheduler import LadderConfig
from search.study import StudySpec, load_spec
from search.worker import ProbeConfigs, RunOptions, affordable_length, search_setup, small_median_large

StudyFile = Callable[..., Path]
OPEN_LENGTH = ("steps = 8\n", ""), ("rungs = 0", "rungs = 4")


@pytest.mark.parametrize(
    ("steps", "fewest", "rungs"),
    [(150 * 81, 150, 4), (150 * 81 - 1, 150, 3), (150 * 27 - 1, 150, 2), (10, 150, 2), (10, 0, 4)],
)
def test_rungs_that_say_nothing_are_left_out(
    steps: int, fewest: int, rungs: int, study_file: StudyFile
) -> None:
    """`steps` is a whole training of the first recipe."""
    spec = spec_of(study_file).with_changes(ladder=LadderConfig(rungs=4, fewest_steps=fewest), timeout=100.0)
    recipes = ProbeConfigs(spec, 1)
    median = small_median_large(recipes.drawn)["median"]  # none is known
    # Half of the time is for the last two thirds of it.
    found = affordable_length(spec, 2 / 3 * steps * median.work / 50 * (1 + 1e-9), recipes)
    assert found.rungs == rungs
    assert found.teramacs == pytest.approx(steps * median.work)
    assert spec.ladder.at_most(found.rungs).shares() == LadderConfig(rungs=rungs).shares()
    assert LadderConfig(rungs=1).at_most(found.rungs).rungs == 1


def test_study_keeps_its_rungs(study_file: StudyFile, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, speed = spec_of(study_file), [1e-9]
    monkeypatch.setattr(search_setup, "measure_training_speed", lambda *_: speed[0])
    options = RunOptions(default_storage_url(out), out, torch.device("cpu"), quiet=True)
    opened = search_setup.prepare_search(spec, options)
    assert opened.spec.ladder.rungs == 2
    assert StudySpec.model_validate_json(opened.study.user_attrs["spec"]) == opened.spec
    speed[0] = 1e9
    assert search_setup.prepare_search(spec, options).spec.ladder.rungs == 2
    # One from before rungs were left out has all of its own.
    other = spec.with_changes(name="other")
    earlier = open_study(other, options.storage, continue_with_changes=False, out=options.out)
    earlier.set_user_attr("full_teramacs", 1e-9)
    assert search_setup.prepare_search(other, options).spec.ladder.rungs == 4


def spec_of(study_file: StudyFile) -> StudySpec:
    return load_spec(str(study_file(*OPEN_LENGTH)))
