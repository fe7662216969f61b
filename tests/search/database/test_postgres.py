"""A PostgreSQL server that asks for a password: how it may be given, and that nobody else sees it."""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from search.__main__ import main
from search.launch.hidden_url import STORAGE_VARIABLE
from tests import postgres

SECRET = "p@ss:w0rd/%x?"
pytestmark = pytest.mark.skipif(postgres.missing() is not None, reason=str(postgres.missing()))


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Commands that run in this process leave it to its end to close the connections that they keep."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    # Not in a folder of pytest's: those are closed to other users, and the server is one.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with postgres.server(Path(folder) / "postgresql", SECRET) as found:
            yield found


@pytest.fixture
def url(server: postgres.Server) -> str:
    return server.url.replace("restune@", f"restune:{quote(SECRET, safe='')}@")


@pytest.mark.parametrize("how", ["url", "postgres", "PGPASSWORD", "pgpass", "variable"])
def test_password_is_taken_from_wherever_people_keep_it(
    how: str, url: str, server: postgres.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "PGPASSWORD":
        monkeypatch.setenv("PGPASSWORD", SECRET)
    elif how == "pgpass":
        (tmp_path / "pgpass").write_text(f"*:*:*:restune:{SECRET.replace(':', chr(92) + ':')}\n", "utf-8")
        (tmp_path / "pgpass").chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    elif how == "variable":
        monkeypatch.setenv(STORAGE_VARIABLE, url)
    given = {"url": url, "postgres": url.replace("postgresql", "postgres", 1)}.get(how, server.url)
    flags = [] if how == "variable" else ["--storage", given]
    assert main(["status", "--out", str(tmp_path), *flags]) == 0


def test_wrong_password_is_one_line_without_it(
    server: postgres.Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = server.url.replace("restune@", "restune:s3cret@")
    assert main(["status", "--out", str(tmp_path), "--storage", wrong]) == 2
    said = capsys.readouterr().err
    assert "cannot be opened" in said and said.count("\n") == 1
    assert "s3cret" not in said


def test_password_is_in_no_output_no_file_and_no_process_of_a_worker(
    url: str, study_file: Callable[..., Path], tmp_path: Path
) -> None:
    study, out = study_file(name="tiny"), tmp_path / "runs"
    command = [
        sys.executable,
        "-m",
        "search",
        "run",
        "--study",
        str(study),
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    environment = {**os.environ, STORAGE_VARIABLE: url, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        seen = set[str]()
        while run.poll() is None:
            for place in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = place.read_bytes().decode(errors="replace")
                except OSError:
                    continue
                if str(out) in line:
                    seen.add(line)
            time.sleep(0.05)
        assert run.stdout is not None
        said = run.stdout.read().decode()
    assert run.returncode == 0, said
    assert any("--supervised" in line for line in seen)
    assert main(["export-best", "tiny", "--out", str(out), "--storage", url, "--format", "safetensors"]) == 0
    assert (
        main(["report", "tiny", "--out", str(out), "--storage", url, "--no-pictures", "--format", "html,md"])
        == 0
    )
    assert (
        main(["status", "tiny", "--out", str(out), "--storage", url, "--json", str(out / "status.json")]) == 0
    )
    assert json.loads((out / "status.json").read_text("utf-8"))
    texts = [said, *seen, *(path.read_bytes().decode("latin-1") for path in out.rglob("*") if path.is_file())]
    for form in (SECRET, quote(SECRET, safe=""), quote(SECRET), "w0rd"):
        assert not any(form in text for text in texts)
