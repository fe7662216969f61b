"""Database URLs: what may be written, where it leads, and that nothing secret of them is ever shown."""

import itertools
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from search.__main__ import main
from search.database import default_storage_url, open_database, studies
from search.database.urls import command_without_passwords, parse_url, without_password
from search.errors import UserError
from search.launch.hidden_url import STORAGE_VARIABLE, with_hidden_url

SECRETS = (
    "p@ss:w0rd",
    "p@ss",
    "pass@",
    "@@",
    "a/b@c",
    "p?x@y",
    "s#cret%41",
    "pa:ss",
    "p%40ss",
    "q&password=z",
    "ä@ö",
)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("place", ["host/db", "host:5432/db", "[::1]:5432/db", "host:PORT/db", "/db", ""])
def test_no_part_of_a_password_is_shown(secret: str, place: str) -> None:
    url = f"postgresql://ursula:{secret}@{place}"
    shown = without_password(url)
    assert shown.startswith("postgresql://ursula:***@")
    parts = {secret[a:b] for a, b in itertools.combinations(range(len(secret) + 1), 2) if b - a > 1}
    rest = shown.removeprefix("postgresql://ursula:***@").replace(place.partition(":PORT")[0], "")
    assert not any(part in rest for part in parts if part not in place)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ursula@host/db", "postgresql://ursula@host/db"),
        ("postgresql://ursula:secret", "postgresql://ursula:***"),  # the host was forgotten
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql://host/db?user=u&password=secret&sslmode=require", None),
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("sqlite:////home/me@work/search.db", "sqlite:////home/me@work/search.db"),
        ("runs/search.db", "runs/search.db"),
    ],
)
def test_what_is_no_secret_stays(url: str, shown: str | None) -> None:
    expected = shown or "postgresql://host/db?user=u&password=***&sslmode=require"
    assert without_password(url) == expected


def test_typed_line_is_kept_without_the_password() -> None:
    line = "python -m search run --study 'a b' --storage=postgresql://u:s3cret@h/db --out runs"
    assert command_without_passwords(line) == line.replace("s3cret", "***").replace(
        "--storage=postgresql://u:***@h/db", "'--storage=postgresql://u:***@h/db'"
    )
    assert "s3cret" not in command_without_passwords("run --storage postgresql://u:s3'cret@h/db")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@ss:w0rd@localhost/db",
        "postgresql://restune:PASSWORD@HOST:PORT/restune",
        "postgresql://u:p@ss@localhost:1/db",
        "postgresql://u:w0rd@localhost:99999/db",
        "postgresql://u:password@@localhost/db",
        "postgresql://u:w0rd@h/test@test",
        "postgresql+asyncpg://u:w0rd@h/db",
        "mysql://u:w0rd@h/db",
        "grpc://u:w0rd@h",
    ],
)
def test_url_that_cannot_work_gets_one_line_without_the_password(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--storage", url, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("search status: --storage ")
    assert not any(part in said for part in ("w0rd", "ss@", "PASSWORD", "password@"))


def test_password_with_signs_of_a_url_is_said_how_to_write() -> None:
    with pytest.raises(UserError, match="@ : / % in a password are written %40 %3A %2F %25"):
        parse_url("postgresql://u:p@ss@host/db")
    url = parse_url("postgresql://u:p%40s%3As%2Fw%25@host/db")
    assert (url.password, url.host) == ("p@s:s/w%", "host")


def test_postgres_is_another_word_for_postgresql() -> None:
    assert parse_url("postgres://u@host/db").drivername == "postgresql"


def test_missing_driver_is_named_as_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("psycopg")

    monkeypatch.setattr(studies, "TransactionalStorage", missing)
    with pytest.raises(
        UserError, match=r"the driver of PostgreSQL is missing: pip install 'restune\[postgresql\]'"
    ):
        open_database("postgresql://u:secret@host/db", create=False)


@pytest.mark.parametrize(
    "name", ["my%20scans", "what?now", "a#b", "50%", "{x}", "a b", "문서", "per%cent{SCHEMA_VERSION}"]
)
def test_database_is_in_the_folder_whatever_that_is_called(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    database: Any = open_database(default_storage_url(out), create=True)
    database.engine.dispose()
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    with sqlite3.connect(out / "search.db") as connection:
        assert connection.execute("select count(*) from studies").fetchone() == (0,)
    connection.close()


def test_home_is_expanded_in_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    database: Any = open_database("sqlite:///~/x.db", create=True)
    database.engine.dispose()
    assert "x.db" in {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "~").exists()


def test_database_of_a_newer_optuna_is_said_to_be_so(tmp_path: Path) -> None:
    database: Any = open_database(default_storage_url(tmp_path), create=True)
    database.engine.dispose()
    with sqlite3.connect(tmp_path / "search.db") as connection:
        connection.execute("update alembic_version set version_num = 'v99.0.0.a'")
    connection.close()
    with pytest.raises(UserError, match="written by a newer version of Optuna than this one"):
        open_database(default_storage_url(tmp_path), create=False)


def test_workers_get_the_url_by_their_environment() -> None:
    flags, environment = with_hidden_url({"--study": "a/b", "--storage": "postgresql://u:secret@h/db"})
    assert flags == ["--study", "a/b"]
    assert environment == {STORAGE_VARIABLE: "postgresql://u:secret@h/db"}


def test_url_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(STORAGE_VARIABLE, f"sqlite:///{tmp_path}/elsewhere.db")
    assert main(["status", "--out", str(tmp_path)]) == 2
    assert "elsewhere.db: no such database" in capsys.readouterr().err
