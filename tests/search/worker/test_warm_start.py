"""A study that carries on from another: what is tried first, what the sampler sees, and that nothing comes twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from search.__main__ import main
from search.database import (
    Study,
    default_storage_url,
    distribution_of_leaf,
    load_study,
    open_study,
    study_facts_of,
)
from search.database.trial_facts import LABEL
from search.errors import UserError
from search.samplers import make_sampler
from search.study import StudySpec, open_leaves
from search.study import spec as study
from search.worker.warm_start import start_warm

StudyFile = Callable[..., Path]
WIDER = ("width = { choices = [4, 6] }", "width = { choices = [6, 8] }")
SAMPLES = [(4, 2e-3, 20.0), (6, 3e-3, 24.0), (6, 5e-3, 23.0), (6, 3e-3, 22.0), (4, 9e-3, 21.0)]


def opened(path: Path, out: Path) -> tuple[StudySpec, Study]:
    spec = study.load_spec(str(path))
    return spec, open_study(spec, default_storage_url(out), continue_with_changes=False, out=out)


def filled(path: Path, out: Path, samples: list[tuple[int, float, float]] = SAMPLES) -> None:
    """A finished study with these widths, rates and scores, on images with the fingerprint "same"."""
    spec, made = opened(path, out)
    leaves = dict(open_leaves(spec.recipe))
    for width, rate, score in samples:
        made.add_trial(
            create_trial(
                params={"model.width": width, "optimizer.lr": rate},
                distributions={name: distribution_of_leaf(leaf) for name, leaf in leaves.items()},
                value=score,
                intermediate_values={25: score - 1, 100: score},
                user_attrs={"data": "same"},
            )
        )


def carried(path: Path, out: Path, data: str = "same") -> tuple[Study, list[str]]:
    spec, made = opened(path, out)
    said: list[str] = []
    start_warm(made, spec, "old", default_storage_url(out), data, said.append)
    return made, said


def fixed(made: Study) -> list[dict[str, Any]]:
    return [trial.system_attrs["fixed_params"] for trial in made.trials if trial.state == TrialState.WAITING]


def test_three_best_distinct_recipes_are_tried_first_under_their_origin(
    study_file: StudyFile, out: Path
) -> None:
    filled(study_file(name="old"), out)
    made, _ = carried(study_file(), out)
    assert fixed(made) == [
        {"model.width": 6, "optimizer.lr": 3e-3},
        {"model.width": 6, "optimizer.lr": 5e-3},
        {"model.width": 4, "optimizer.lr": 9e-3},
    ]
    assert [trial.user_attrs[LABEL] for trial in made.trials] == [
        "from old, trial 1",
        "from old, trial 2",
        "from old, trial 4",
    ]


def test_higher_rung_counts_more_than_higher_score(study_file: StudyFile, out: Path) -> None:
    path = study_file(name="old")
    filled(path, out)
    _, old = opened(path, out)
    early = create_trial(
        params={"model.width": 4},
        distributions={"model.width": optuna.distributions.CategoricalDistribution([4, 6])},
        state=TrialState.PRUNED,
        intermediate_values={25: 40.0},
    )
    old.add_trial(early)
    made, _ = carried(study_file(), out)
    assert "from old, trial 5" not in {trial.user_attrs[LABEL] for trial in made.trials}


def test_settings_outside_the_new_space_are_left_out(study_file: StudyFile, out: Path) -> None:
    filled(study_file(name="old"), out)
    made, said = carried(study_file(WIDER, ("low = 1e-3", "low = 4e-3")), out)
    assert fixed(made) == [
        {"model.width": 6},
        {"model.width": 6, "optimizer.lr": 5e-3},
        {"optimizer.lr": 9e-3},
    ]
    assert not study_facts_of(made).earlier_trials
    assert "not shown to the sampler: other settings, ranges or images" in said[0]


def test_study_of_which_nothing_fits_is_refused(study_file: StudyFile, out: Path) -> None:
    filled(study_file(name="old"), out)
    path = study_file(
        ("width = { choices = [4, 6] }", "width = 4"),
        ("lr = { low = 1e-3, high = 1e-2,", "lr = { low = 0.1, high = 1.0,"),
    )
    with pytest.raises(UserError, match=r"none of its 5 trials .*\(there: optimizer.lr\)"):
        carried(path, out)
    with pytest.raises(UserError, match="no study 'old'"):
        carried(path, out / "elsewhere")


def test_carrying_on_twice_adds_nothing(study_file: StudyFile, out: Path) -> None:
    filled(study_file(name="old"), out)
    path = study_file()
    made, _ = carried(path, out)
    earlier = study_facts_of(made).earlier_trials
    again, said = carried(path, out)
    assert len(again.trials) == 3
    assert study_facts_of(again).earlier_trials == earlier
    assert said == []


@pytest.mark.parametrize(
    "changed",
    [("steps = 8", "steps = 9"), ("steps = 8", "steps = 8\nrung_megapixels = 0.5"), None],
)
def test_trials_are_shown_only_if_length_pixels_and_images_are_the_same(
    study_file: StudyFile, out: Path, changed: tuple[str, str] | None
) -> None:
    filled(study_file(name="old"), out)
    made, _ = carried(study_file(*([changed] if changed else [])), out, "same" if changed else "others")
    assert not study_facts_of(made).earlier_trials
    assert len(made.trials) == 3


def test_sampler_draws_as_if_the_earlier_trials_were_of_its_own_study(
    study_file: StudyFile, out: Path
) -> None:
    samples = [(4 + 2 * (n % 2), 1e-3 * (1 + n % 8), 20.0 + n % 5) for n in range(20)]
    filled(study_file(name="old"), out, samples)
    path = study_file()
    made, _ = carried(path, out)
    spec = study.load_spec(str(path))

    def draw(home: Study) -> tuple[Any, ...]:
        new = optuna.Trial(home, home._storage.create_new_trial(home._study_id))
        home.sampler = make_sampler(spec, 77)
        return (
            home.sampler.sample_independent(
                home, home.trials[new.number], "optimizer.lr", distribution_of_leaf(leaves["optimizer.lr"])
            ),
        )

    leaves: dict[str, Any] = dict(open_leaves(spec.recipe))
    old = load_study("old", default_storage_url(out))
    assert draw(made) == draw(old)
    bare = optuna.create_study(direction="maximize")
    assert draw(made) != draw(bare)


def test_run_tries_them_before_the_recipes_of_the_study(
    study_file: StudyFile, out: Path, trials: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = study_file(name="old"), study_file(more='[[first]]\nname = "known"\n"model.width" = 4')
    assert main(["run", "--study", str(old), "--out", str(out), "--quiet"]) == 0
    flags = ["run", "--study", str(new), "--out", str(out), "--warm-start", "old"]
    assert main([*flags, "--trials", "3"]) == 0
    labels = [trial.user_attrs.get(LABEL) for trial in trials()]
    assert labels[-1] == "known"
    assert {"from old, trial 0", "from old, trial 1"} == set(labels[:-1])
    assert "carries on from old: its trials" in capsys.readouterr().out
    best = max(trials("old"), key=lambda trial: trial.value or 0.0)
    assert trials()[0].params == best.params
    assert main([*flags, "--trials", "4"]) == 0
    assert [trial.user_attrs.get(LABEL) for trial in trials()] == [*labels, None]
    assert main(["run", "--study", str(new), "--out", str(out), "--warm-start", "tiny"]) == 2
    assert "the study itself" in capsys.readouterr().err
