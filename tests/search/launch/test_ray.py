"""Workers on a Ray cluster; skipped where Ray is not installed."""

import contextlib
import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from data.sources import PairsConfig, pack_pairs
from search.__main__ import main
from search.database import FrozenTrial, TrialState, default_storage_url, load_study
from search.database.trial_facts import OWNER
from search.launch.ray_actor import WorkerActor
from tests.conftest import write_pairs
from tests.search.runs import at_work, started, wait_until

StudyFile = Callable[..., Path]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes, each with room for one worker, and a head without."""
    pytest.importorskip("ray", reason="workers on a cluster are not tested: pip install 'restune[cluster]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield found
    finally:
        found.shutdown()


def trials(out: Path) -> list[FrozenTrial]:
    return load_study("tiny", default_storage_url(out)).trials


def test_node_that_is_killed_costs_no_trial(study_file: StudyFile, out: Path, cluster: Any) -> None:
    path = study_file(
        ("steps = 8", "steps = 300"), ("evaluations = 4", "evaluations = 15"), ("trials = 2", "trials = 3")
    )
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    with started(path, out, "--cluster", cluster.address, "--workers", "2") as process:
        wait_until(lambda: (out / "search.db").exists() and at_work(out, 0) and at_work(out, 1))
        (raylet,) = (found.process.pid for found in nodes[0].all_processes["raylet"])
        victims = [psutil.Process(raylet), *psutil.Process(raylet).children(recursive=True)]
        pids = {victim.pid for victim in victims}
        (lost,) = (trial for trial in trials(out)[:2] if trial.user_attrs[OWNER]["pid"] in pids)
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):  # the first one's end may end the others
                victim.kill()
        stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stderr) == (0, "")
    assert "worker 0 is on" in stdout
    assert "died: its machine is gone" in stdout
    found = trials(out)
    assert [trial.number for trial in found] == [0, 1, 2]
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 3
    assert found[lost.number].params == lost.params
    steps = [[rung["step"] for rung in json.loads(trial.user_attrs["rungs"])] for trial in found]
    assert steps == [list(range(20, 301, 20))] * 3
    assert not list((out / "tiny").glob(".cluster-*"))


def test_cluster_needs_ray_and_sqlite_needs_one_machine(
    study_file: StudyFile, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["run", "--study", str(study_file()), "--out", str(out), "--cluster", "auto"]
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(command) == 2
    assert capsys.readouterr().err == "search run: --cluster needs Ray: pip install 'restune[cluster]'\n"
    ray = SimpleNamespace(
        init=lambda *_, **__: None,
        nodes=lambda: [
            {"Alive": True, "NodeManagerHostname": host, "Resources": {"CPU": 2.0}}
            for host in (socket.gethostname(), "elsewhere")
        ],
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert main(command) == 2
    assert "SQLite is for one machine, and this cluster has elsewhere" in capsys.readouterr().err
    assert main([*command[:-2], "--gpus-per-worker", "0.5"]) == 2
    assert "--cluster ADDRESS is missing" in capsys.readouterr().err


def test_post_starts_a_worker_and_says_all_that_it_said(study_file: StudyFile, out: Path) -> None:
    assert main(["run", "--study", str(study_file()), "--out", str(out), "--trials", "1", "--quiet"]) == 0
    study = load_study("tiny", default_storage_url(out))
    study.set_user_attr("spec", study.user_attrs["spec"].replace('"trials":1', '"trials":2'))
    there = WorkerActor()
    flags = {"--study": "tiny", "--out": str(out), "--storage": default_storage_url(out), "--elapsed": "0"}
    pid = there.start(flags, str(out / "tiny" / "worker-0.log"))
    lines = list[str]()
    while (output := there.read_output()).code is None:
        lines += output.lines
    lines += output.lines
    assert (output.code, output.error_output) == (0, "")
    assert [json.loads(line)[0] for line in lines].count("ended") == 1
    assert not psutil.pid_exists(pid)
    assert [trial.state for trial in trials(out)] == [TrialState.COMPLETE] * 2
    weights = "tiny/trial-0001/best.safetensors"
    assert there.fetch(str(out), [weights, "tiny/none"]) == {weights: (out / weights).read_bytes()}


def test_trial_trained_on_pairs_elsewhere_is_exported_where_the_study_has_them(
    study_file: StudyFile, out: Path, tmp_path: Path, pairs_folder: Path
) -> None:
    places = ["--study", "tiny", "--out", str(out)]
    assert main(["run", *places[2:], "--study", str(study_file()), "--trials", "1", "--quiet"]) == 0
    study = load_study("tiny", default_storage_url(out))
    study.set_user_attr("spec", study.user_attrs["spec"].replace('"trials":1', '"trials":2'))
    elsewhere = tmp_path / "elsewhere"
    WorkerActor().unpack_pairs(pack_pairs(PairsConfig(dir=pairs_folder), out), str(elsewhere))
    assert main(["worker", *places, "--data", str(elsewhere), "--quiet"]) == 0
    first, second = (json.loads(trial.user_attrs["config"]) for trial in trials(out))
    assert first["data"] == second["data"]


def test_post_tells_what_it_sees_of_the_drivers_folders(tmp_path: Path) -> None:
    (tmp_path / "mark").touch()
    (tmp_path / "file").touch()
    (tmp_path / "not-mounted").mkdir()
    seen = WorkerActor().inspect(str(tmp_path), "mark", str(tmp_path))
    assert (seen.hostname, seen.out, seen.is_shared, seen.has_data) == (
        socket.gethostname(),
        str(tmp_path),
        True,
        True,
    )
    own = WorkerActor().inspect(str(tmp_path / "own"), "mark", str(tmp_path / "not-mounted"))
    assert (own.out, own.is_shared, own.has_data) == (str(tmp_path / "own"), False, False)
    # Where the driver's folder cannot be made, there is one for temporary files.
    assert (
        not WorkerActor()
        .inspect(str(tmp_path / "file" / "runs"), "mark", None)
        .out.startswith(str(tmp_path / "file"))
    )


@pytest.mark.parametrize("split", ["as found", "by image"])
def test_pairs_in_a_parcel_are_the_same_pairs_elsewhere(split: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    for part in ("train", "val") if split == "as found" else ("",):
        write_pairs(here / part, [f"page-{n}.{part}" for n in range(5)], seed=3, channels=3)
    config = PairsConfig(dir=here, channels=1)
    pack_pairs(config, tmp_path / "driver")
    for _ in range(2):  # several actors of one machine
        WorkerActor().unpack_pairs(pack_pairs(config, tmp_path / "driver"), str(tmp_path / "there" / "pairs"))
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["pairs"]
    there = config.model_copy(update={"dir": tmp_path / "there" / "pairs"}).open(
        seed=0, cache=tmp_path / "node"
    )
    assert there.fingerprint == config.open(seed=0, cache=tmp_path / "driver").fingerprint
