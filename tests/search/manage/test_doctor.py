"""`doctor`: what is wrong with a machine is found, and a sound one is left in peace."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import torch
from optuna.trial import create_trial

from search.__main__ import main
from search.database import default_storage_url, open_database
from search.manage import doctor
from search.manage.doctor import DoctorFinding


@pytest.fixture
def url(out: Path) -> str:
    """A database with a study that has trials."""
    database = open_database(default_storage_url(out), create=True)
    study = optuna.create_study(study_name="kbnet", storage=database, direction="maximize")
    for index in range(40):
        study.add_trial(create_trial(value=20.0, user_attrs={"config": f"{index}" * 400}))
    database.remove_session()
    database.engine.dispose()
    return default_storage_url(out)


def only(findings: Iterator[DoctorFinding]) -> DoctorFinding:
    (finding,) = findings
    return finding


def test_sound_machine_has_nothing_wrong_and_every_topic(
    url: str, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "TIMED_STEPS", 1)
    monkeypatch.setattr(doctor, "why_not_compiled", lambda: "no C++ compiler found")
    assert main(["doctor", "--json", "-", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(dict.fromkeys(finding["topic"] for finding in found)) == list(doctor.DOCTOR_TOPICS)
    assert {finding["level"] for finding in found} <= {"ok", "note"}


def test_nothing_is_made_where_no_search_has_been(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    assert only(doctor.check_database(default_storage_url(out))).level == "note"
    assert only(doctor.check_disk(out)).level == "ok"
    assert not out.exists()


def test_sound_database_is_ok(url: str) -> None:
    finding = only(doctor.check_database(url))
    assert finding.level == "ok"
    assert "1 studies, 40 trials" in finding.text
    assert "whole, writable, journal wal" in finding.text


def test_damaged_database_is_wrong(url: str, out: Path) -> None:
    path = out / "search.db"
    with path.open("r+b") as file:
        # The roots of the tables come first; far behind are the attributes of trials.
        file.seek(path.stat().st_size * 3 // 4)
        file.write(b"\xff" * 4096)
    finding = next(doctor.check_database(url))
    assert finding.level == "wrong"


def test_database_of_another_program_is_wrong(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("create table songs (name text)")
    connection.close()
    finding = only(doctor.check_database(f"sqlite:///{tmp_path}/other.db"))
    assert (finding.level, "another program" in finding.text) == ("wrong", True)


def test_database_on_a_network_file_system_is_noted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [
        SimpleNamespace(mountpoint="/", fstype="ext4"),
        SimpleNamespace(mountpoint="/tmp", fstype="nfs4"),
    ]
    monkeypatch.setattr(doctor.psutil, "disk_partitions", lambda all: mounts)
    path = Path("/tmp/shared/search.db")
    assert doctor._file_system(path) == "nfs4"
    monkeypatch.setattr(doctor, "_file_system", lambda path: "nfs4")
    assert [finding.level for finding in doctor.check_database(url)] == ["ok", "note"]


@pytest.mark.parametrize(("free", "level"), [(1e8, "wrong"), (1e9, "note"), (1e10, "ok")])
def test_little_disk_is_told(free: float, level: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "kbnet").mkdir(parents=True)
    (out / "kbnet" / "best.pt").write_bytes(bytes(3_400_000))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=free, total=1e12))
    finding = only(doctor.check_disk(out))
    assert finding.level == level
    assert finding.text.endswith("takes 3.4 MB (kbnet 3.4 MB)")


def test_library_of_another_version_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["optuna>=99", "torch>=2", "missing-thing>=1", "coremltools>=9; extra == 'coreml'"]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: wanted)
    _, optuna_, missing = doctor.check_versions()
    assert (optuna_.level, missing.level) == ("wrong", "wrong")
    assert optuna_.text.endswith("pip install 'optuna>=99'")
    assert "missing-thing is not installed" in missing.text


@pytest.mark.parametrize(
    ("auto", "gain", "level", "advice"),
    [
        ("bf16", 1.5, "ok", None),
        ("bf16", 0.5, "note", 'precision = "fp32"'),
        ("fp32", 0.5, "ok", None),
        ("fp32", 1.5, "note", 'precision = "bf16"'),
    ],
)
def test_precision_is_noted_where_auto_is_not_the_faster(
    auto: str, gain: float, level: str, advice: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: auto == "bf16")
    monkeypatch.setattr(doctor, "available_devices", lambda: [torch.device("cpu")])
    monkeypatch.setattr(doctor, "_seconds", lambda device, name: gain if name == "fp32" else 1.0)
    finding = only(doctor.check_precision())
    assert finding.level == level
    assert (advice in finding.text) if advice else ("recipe" not in finding.text)


def test_missing_compiler_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "why_not_compiled", lambda: "no C++ compiler found")
    finding = next(doctor.check_operator())
    assert (finding.level, "no C++ compiler found" in finding.text) == ("note", True)


def test_limit_of_a_container_is_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"memory.max": 3_000_000_000, "memory.current": 1_500_000_000}
    monkeypatch.setattr(doctor, "_cgroup", given.get)
    finding = only(doctor.check_memory())
    assert (finding.level, "1.5 GB of 3 GB free" in finding.text) == ("note", True)


def test_check_that_breaks_is_a_finding_and_the_others_go_on(
    url: str, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Iterator[DoctorFinding]:
        raise RuntimeError("driver")

    quiet = ("versions", "memory", "processor", "precision", "operator", "onnx")
    for name in quiet:
        monkeypatch.setattr(doctor, f"check_{name}", lambda: iter(()))
    monkeypatch.setattr(doctor, "check_devices", broken)
    assert main(["doctor", "--out", str(out)]) == 1
    text = capsys.readouterr().out
    assert "wrong  devices    could not be examined: RuntimeError: driver" in text
    assert text.splitlines()[-1] == "1 wrong"
