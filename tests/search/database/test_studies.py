"""The database: what is refused, what goes back into the queue, and that a continued study draws the same."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search.database import begin_trial, claim_trial, default_storage_url, release_trial, studies
from search.database.queue import trial_view
from search.errors import UserError
from search.samplers import make_sampler
from search.scheduler import LadderConfig, State, TrialView
from search.study import StudySpec, fill_leaves, load_spec

StudyFile = Callable[..., Path]
LR = "lr = { low = 1e-3, high = 1e-2, log = true }"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return default_storage_url(tmp_path / "runs")


@pytest.fixture
def spec(study_file: StudyFile) -> StudySpec:
    return load_spec(str(study_file()))


def open_study(spec: StudySpec, url: str, changes: bool = False) -> optuna.Study:
    return studies.open_study(
        spec, url, continue_with_changes=changes, out=Path(url.removeprefix("sqlite:///")).parent
    )


def one_trial(opened: optuna.Study, spec: StudySpec, value: float | None = 30.0) -> optuna.Trial:
    """A trial with its settings drawn, and finished unless `value` is None."""

    def sampler(number: int) -> optuna.samplers.BaseSampler:
        return make_sampler(spec, number)

    waiting = opened.get_trials(states=[TrialState.WAITING])
    trial = claim_trial(opened, waiting[0], sampler) if waiting else begin_trial(opened, 99, sampler)
    assert trial is not None
    fill_leaves(spec.recipe, trial)
    if value is not None:
        opened.tell(trial, value)
    return trial


def test_database_is_in_wal_mode(spec: StudySpec, url: str, tmp_path: Path) -> None:
    open_study(spec, url)
    connection = sqlite3.connect(tmp_path / "runs" / "search.db")
    assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
    connection.close()


def test_writer_waits_for_another_writer(spec: StudySpec, url: str) -> None:
    database = studies.open_database(url, create=True)
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("pragma busy_timeout").scalar() == 60_000


def test_study_opened_twice_is_one_study_that_maximises(spec: StudySpec, url: str) -> None:
    one_trial(open_study(spec, url), spec)
    again = open_study(spec, url)
    assert again.direction == optuna.study.StudyDirection.MAXIMIZE
    assert [trial.value for trial in again.trials] == [30.0]


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("steps = 8", "steps = 9", "recipe.steps was 8, now 9"),
        ("high = 1e-2", "high = 5e-2", "recipe.optimizer.lr.high was 0.01, now 0.05"),
        ("[4, 6]", "[4, 8]", "recipe.model.width.choices was [4, 6], now [4, 8]"),
        ("ema_decay = 0.5\n", "", "recipe.ema_decay is gone"),
        ("steps = 8", "steps = 8\nclip_norm = 2.0", "recipe.clip_norm is new"),
    ],
)
def test_changed_recipe_is_refused_with_its_place_and_two_ways_out(
    old: str, new: str, place: str, spec: StudySpec, study_file: StudyFile, url: str
) -> None:
    one_trial(open_study(spec, url), spec)
    changed = load_spec(str(study_file((old, new))))
    with pytest.raises(UserError) as caught:
        open_study(changed, url)
    first, second = str(caught.value).splitlines()
    assert first == f"study 'tiny' in {url} has another recipe: {place}"
    assert "--name tiny-2" in second
    assert "--continue-with-changes" in second


def test_recipe_may_change_while_there_are_no_trials(
    spec: StudySpec, study_file: StudyFile, url: str
) -> None:
    open_study(spec, url)
    changed = load_spec(str(study_file(("steps = 8", "steps = 9"))))
    one_trial(open_study(changed, url), changed)
    with pytest.raises(studies.ChangedRecipe, match="steps was 9, now 8"):
        open_study(spec, url)


def test_changed_recipe_goes_on_when_told_to_and_is_then_the_recipe(
    spec: StudySpec, study_file: StudyFile, url: str
) -> None:
    one_trial(open_study(spec, url), spec)
    changed = load_spec(str(study_file(("high = 1e-2", "high = 5e-2"))))
    opened = open_study(changed, url, changes=True)
    one_trial(opened, changed)
    assert len(open_study(changed, url).trials) == 2
    with pytest.raises(UserError, match="has another recipe"):
        open_study(spec, url)


def test_another_name_keeps_the_old_study(spec: StudySpec, study_file: StudyFile, url: str) -> None:
    one_trial(open_study(spec, url), spec)
    changed = load_spec(str(study_file(("steps = 8", "steps = 9")))).with_changes(name="tiny-2")
    assert open_study(changed, url).trials == []
    assert len(open_study(spec, url).trials) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[4, 6]", "[4, 8]", "model.width was a choice of 4, 6, now it is a choice of 4, 8"),
        (
            "{ choices = [4, 6] }",
            "{ low = 4, high = 6 }",
            "model.width was a choice of 4, 6, now it is a range of whole",
        ),
        (
            LR,
            "lr = { choices = [1e-3] }",
            "optimizer.lr was a log range of numbers, now it is a choice of 0.001",
        ),
        (", log = true", "", "optimizer.lr was a log range of numbers, now it is a range of numbers"),
    ],
)
def test_change_that_optuna_cannot_mix_is_refused_even_when_told_to_go_on(
    old: str, new: str, message: str, spec: StudySpec, study_file: StudyFile, url: str
) -> None:
    one_trial(open_study(spec, url), spec)
    with pytest.raises(UserError) as caught:
        open_study(load_spec(str(study_file((old, new)))), url, changes=True)
    assert message in str(caught.value)
    assert "start a new study (--name tiny-2)" in str(caught.value)


def test_closing_an_open_leaf_is_a_change_that_can_go_on(
    spec: StudySpec, study_file: StudyFile, url: str
) -> None:
    one_trial(open_study(spec, url), spec)
    changed = load_spec(str(study_file((LR, "lr = 1e-3"))))
    assert one_trial(open_study(changed, url, changes=True), changed).params.keys() == {"model.width"}


def test_database_of_another_program_is_refused_and_left_alone(spec: StudySpec, tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    connection = sqlite3.connect(path)
    connection.execute("create table albums (name text)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(
        UserError, match=r"photos\.db: a database of another program \(tables albums\); --storage"
    ):
        open_study(spec, f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_study_of_another_program_in_an_optuna_database_is_refused(spec: StudySpec, url: str) -> None:
    studies.make_writable(Path(url.removeprefix("sqlite:///")).parent)
    other = optuna.create_study(study_name="tiny", storage=url, direction="maximize")
    other.tell(other.ask(), 1.0)
    with pytest.raises(UserError, match="study 'tiny' was not made by this program; choose another --name"):
        open_study(spec, url)


@pytest.mark.parametrize("content", [b"just some text, long enough to be no header" * 9, b"\x00" * 4096])
def test_file_that_is_no_database_is_refused_and_left_alone(
    content: bytes, spec: StudySpec, tmp_path: Path
) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"notes\.db: cannot be used as a database: "):
        open_study(spec, f"sqlite:///{path}")
    assert path.read_bytes() == content


def test_folder_in_the_place_of_a_database_is_refused(spec: StudySpec, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be used as a database: unable to open"):
        open_study(spec, f"sqlite:///{tmp_path}")


def test_file_in_the_place_of_the_runs_folder_is_refused(spec: StudySpec, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(UserError, match="runs: cannot write here: File exists; --out names another folder"):
        studies.make_writable(tmp_path / "runs")
    with pytest.raises(UserError, match="inside: cannot write here: Not a directory"):
        open_study(spec, default_storage_url(tmp_path / "runs" / "inside"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot write here: Permission denied"):
        studies.make_writable(tmp_path / "runs")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("runs.db", "--storage runs.db: not a database URL; write sqlite:///FILE or postgresql://..."),
        ("", "--storage : not a database URL"),
        ("sqlite:///:memory:", "--storage sqlite:///:memory:: results must outlive this process"),
        ("sqlite://", "--storage sqlite://: results must outlive this process"),
        (
            "oracle://me:secret@host/db",
            "--storage oracle://me:***@host/db: not supported; write sqlite:///FILE or",
        ),
        (
            "mysql+pymysql://me:secret@host/db",
            "not supported; write sqlite:///FILE or postgresql://USER@HOST/NAME",
        ),
        ("redis://:secret@host:6379/0", "not supported"),
        ("nosuch://host/db", "nosuch://host/db: not supported"),
        ("journal.log", "not a database URL"),
        ("sqlite://runs/search.db", "write sqlite:///FILE, three slashes before a path"),
        ("sqlite:///what?now.db", "write sqlite:///FILE, ? in a file name is written %3F"),
    ],
)
def test_database_url_that_cannot_be_used_is_refused(url: str, message: str, spec: StudySpec) -> None:
    with pytest.raises(UserError) as caught:
        open_study(spec, url)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_study_that_is_not_there_is_named_with_those_that_are(spec: StudySpec, url: str) -> None:
    with pytest.raises(UserError, match=r"no such database; `python -m search run` makes it"):
        studies.load_study("tiny", url)
    open_study(spec, url)
    with pytest.raises(UserError, match=r"no study 'tny'; did you mean tiny\? \(there: tiny\)"):
        studies.load_study("tny", url)
    assert studies.load_study("tiny", url).study_name == "tiny"


def test_processes_that_make_the_same_database_at_the_same_time_all_open_it(tmp_path: Path) -> None:
    url = default_storage_url(tmp_path)
    code = f"from search.database import studies; input(); studies.open_database({url!r}, create=True)"
    command = [sys.executable, "-c", code]
    makers = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    time.sleep(1.0)  # for their imports
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write(b"\n")
        maker.stdin.flush()
    assert [maker.communicate()[1] for maker in makers] == [b""] * 3


def test_database_that_is_just_being_made_has_no_studies_yet(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "search.db").close()
    with pytest.raises(UserError, match="no study has been written to it yet"):
        studies.load_study("tiny", default_storage_url(tmp_path))


def test_continued_study_draws_what_an_unbroken_one_draws(study_file: StudyFile, tmp_path: Path) -> None:
    spec = load_spec(str(study_file(("[4, 6]", "[4, 5, 6, 7]")))).with_changes(seed=3)

    def value(trial: optuna.Trial) -> float:
        return float(trial.params["optimizer.lr"]) * int(trial.params["model.width"])

    def draw(opened: optuna.Study, count: int) -> None:
        for _ in range(count):
            trial = one_trial(opened, spec, value=None)
            opened.tell(trial, value(trial))

    unbroken, broken = (default_storage_url(tmp_path / name) for name in ("unbroken", "broken"))
    draw(open_study(spec, unbroken), 14)
    for count in (3, 6):
        draw(open_study(spec, broken), count)
    interrupted = one_trial(open_study(spec, broken), spec, value=None)
    release_trial(open_study(spec, broken), interrupted)
    draw(open_study(spec, broken), 5)
    one, other = ([trial.params for trial in open_study(spec, url).trials] for url in (unbroken, broken))
    assert one == other
    assert len({str(params) for params in one}) > 7


def test_another_seed_draws_other_settings(spec: StudySpec, tmp_path: Path) -> None:
    draws = []
    for seed in (0, 1):
        seeded = spec.with_changes(seed=seed)
        opened = open_study(seeded, default_storage_url(tmp_path / str(seed)))
        draws.append([one_trial(opened, seeded).params for _ in range(3)])
    assert draws[0] != draws[1]


def test_best_trial_is_the_highest_complete_one_even_below_zero(spec: StudySpec, url: str) -> None:
    opened = open_study(spec, url)
    assert studies.best_trial(opened) is None
    for value in (-3.0, -1.0, -2.0):
        one_trial(opened, spec, value)
    pruned = one_trial(opened, spec, value=None)
    pruned.report(99.0, 1)
    opened.tell(pruned, state=TrialState.PRUNED)
    best = studies.best_trial(opened)
    assert best is not None
    assert best.number == 1


def test_policy_sees_rungs_of_trials_that_have_begun_and_did_not_fail(spec: StudySpec, url: str) -> None:
    opened = open_study(spec, url)
    opened.enqueue_trial({"model.width": 6})

    def begun(goal: int, *reached: int) -> optuna.Trial:
        trial = begin_trial(opened, 99, lambda number: optuna.samplers.RandomSampler())
        studies.record_facts(trial, goal=goal)
        for percent in reached:
            trial.report(20.0 + percent, percent)
        return trial

    paused, interrupted, running, failed, pruned = (
        begun(25, 12, 25),
        begun(100, 12, 25),
        begun(6),
        begun(6, 6),
        begun(6, 6),
    )
    for trial in (paused, interrupted):
        release_trial(opened, trial)
    opened.tell(failed, state=TrialState.FAIL)
    opened.tell(pruned, state=TrialState.PRUNED)
    assert [trial_view(trial, LadderConfig(rungs=2, factor=4)) for trial in opened.trials] == [
        TrialView(0, State.QUEUED),
        TrialView(paused.number, State.PAUSED, {25: 45.0}, goal=25),
        TrialView(interrupted.number, State.INTERRUPTED, {25: 45.0}, goal=100),
        TrialView(running.number, State.RUNNING, goal=6),
        TrialView(failed.number, State.FAILED, goal=6),
        TrialView(pruned.number, State.PRUNED, {6: 26.0}, goal=6),
    ]
