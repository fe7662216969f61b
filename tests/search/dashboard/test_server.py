"""The dashboard: who gets in, what they may do, and what they see."""

import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna_dashboard import get_note, save_note

from search.__main__ import main
from search.dashboard import notes
from search.dashboard import server as dashboard
from search.dashboard.auth import COOKIE, AccessControl, is_loopback
from search.database import default_storage_url, load_study, open_database, trial_handle
from search.errors import UserError
from tests.search.chromium import Browser
from tests.search.conftest import NASTY

TOKEN = "correct horse battery"


def inner(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    start("200 OK", [])
    return [b"inside"]


def ask(
    access: AccessControl,
    method: str = "GET",
    address: str = "http://localhost:8080/api/studies",
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body that a browser gets at this address."""
    place = urlsplit(address)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": place.path,
        "QUERY_STRING": place.query,
        "HTTP_HOST": place.netloc,
        **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
    }
    setup_testing_defaults(environ)
    answer: dict[str, Any] = {}

    def start(status: str, found: list[tuple[str, str]]) -> None:
        answer.update(status=int(status.split()[0]), headers=dict(found))

    body = b"".join(access(environ, start))
    return answer["status"], answer["headers"], body


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.4", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_only_own_addresses_are_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) is own


def test_without_a_token_only_own_names_of_this_machine_are_served() -> None:
    access = AccessControl(inner, token=None, read_only=False)
    assert ask(access)[2] == b"inside"
    assert ask(access, address="http://[::1]:8080/")[2] == b"inside"
    # A page elsewhere can point its own name at 127.0.0.1, but the browser still says that name.
    assert ask(access, address="http://evil.example:8080/api/studies")[0] == 403


def test_token_lets_in_once_and_a_cookie_from_then_on() -> None:
    access = AccessControl(inner, TOKEN, read_only=False)
    assert ask(access)[0] == 401
    assert b"<form" in ask(access, address="http://server/dashboard")[2]
    query = TOKEN.replace(" ", "%20")
    status, headers, _ = ask(access, address=f"http://server/dashboard/studies/1?token={query}&page=2")
    assert (status, headers["Location"]) == (303, "/dashboard/studies/1?page=2")
    cookie, *attributes = headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Lax"} <= set(attributes)
    assert TOKEN not in cookie
    assert ask(access, cookie=f"other=1; {cookie}")[2] == b"inside"
    assert ask(access, authorization=f"Bearer {TOKEN}")[2] == b"inside"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"cookie": f"{COOKIE}="},
        {"cookie": f"{COOKIE}={TOKEN}"},
        {"cookie": "=;;;\x00"},
        {"authorization": "Bearer "},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": f"Bearer {TOKEN}\udce4"},
    ],
)
def test_nothing_else_lets_in(headers: dict[str, str]) -> None:
    access = AccessControl(inner, TOKEN, read_only=False)
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        assert ask(access, method, **headers)[0] == 401
        assert ask(access, method, address="http://server/x?token=wrong", **headers)[0] == 401
    other = AccessControl(inner, "another token of length", read_only=False)
    cookie = ask(other, address="http://server/?token=another%20token%20of%20length")[1]["Set-Cookie"]
    assert ask(access, cookie=cookie.split(";")[0])[0] == 401


def test_way_in_leads_nowhere_else() -> None:
    access = AccessControl(inner, TOKEN, read_only=False)
    query = TOKEN.replace(" ", "%20")
    for path in ("//evil.example/x", "/\\evil.example", "///evil.example", "/a\r\nSet-Cookie: x"):
        environ = f"http://server/?token={query}"
        place = urlsplit(environ)
        request = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "QUERY_STRING": place.query,
            "HTTP_HOST": "server",
        }
        found: dict[str, str] = {}
        list(access(request, lambda status, headers, found=found: found.update(headers)))  # type: ignore[misc]
        assert found["Location"].startswith("/")
        assert not found["Location"].startswith(("//", "/\\"))
        assert "\n" not in found["Location"]
    assert b"<script>" not in ask(access, address="http://server/<script>")[2]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "BREW"])
def test_read_only_refuses_every_change(method: str) -> None:
    access = AccessControl(inner, token=None, read_only=True)
    status, headers, body = ask(access, method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert b"read-only" in body
    assert ask(access, "GET")[0] == ask(access, "HEAD")[0] == 200
    assert ask(AccessControl(inner, None, read_only=False), method)[0] == 200


def test_other_sites_change_nothing() -> None:
    access = AccessControl(inner, token=None, read_only=False)
    assert ask(access, "DELETE", origin="http://localhost:8080")[0] == 200
    assert ask(access, "DELETE", origin="http://evil.example")[0] == 403
    assert ask(access, "DELETE", origin="null")[0] == 403


def study_of(out: Path, name: str = "tiny") -> optuna.Study:
    return load_study(name, default_storage_url(out))


@contextmanager
def served(out: Path, **changes: Any) -> Iterator[str]:
    """The address that `serve` prints, while it runs; it is ended as by Ctrl-C."""
    options = dashboard.DashboardOptions(
        url=default_storage_url(out), artifacts=out / "artifacts", port=0, browser=False, **changes
    )
    database = open_database(options.url, create=False)
    with dashboard._server(database, options, options.token) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


def test_notes_say_how_trials_ended_and_who_won(explored: Path) -> None:
    study = study_of(explored)
    notes.refresh_notes(study)
    best = study.best_trial
    text = get_note(study)
    assert f"it restores at {best.value:.2f} dB" in text.replace("\\", "")
    assert [f"| {trial.number} | {trial.value:.2f} |" in text for trial in study.trials] == [True] * 3
    for trial in study.trials:
        note = get_note(trial_handle(study, trial._trial_id))
        assert f"**{trial.value:.2f} dB**" in note
        (artifact,) = optuna.artifacts.get_all_artifact_meta(study_or_trial=trial, storage=study._storage)
        assert f"/artifacts/{study._study_id}/{trial._trial_id}/{artifact.artifact_id}" in note


def test_notes_are_written_once_and_leave_a_persons_text_alone(explored: Path, tmp_path: Path) -> None:
    study = study_of(explored, "filters")
    notes.refresh_notes(study)
    before = study._storage.get_study_system_attrs(study._study_id)
    notes.refresh_notes(study)
    assert study._storage.get_study_system_attrs(study._study_id) == before
    save_note(study, "mine")
    notes.refresh_notes(study)
    assert get_note(study) == "mine"


def test_token_is_asked_for_beyond_this_machine() -> None:
    def token(**changes: Any) -> str | None:
        return dashboard._token(dashboard.DashboardOptions(url="", artifacts=Path(), **changes))

    assert token() is None
    assert token(token=TOKEN) == TOKEN
    made = [token(host="0.0.0.0") for _ in range(5)]
    assert len({*made, None}) == 6
    assert all(len(text) >= 32 for text in made if text)
    with pytest.raises(UserError, match="at least 16"):
        token(host="0.0.0.0", token="short")


def test_port_in_use_is_one_line(explored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["dashboard", "--out", str(explored), "--port", port, "--no-browser"]) == 2
    told = capsys.readouterr().err
    assert f"--port {port}: cannot be used" in told
    assert len(told.strip().splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_cleanly(
    explored: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    serve_forever = dashboard.WSGIServer.serve_forever

    def interrupted(server: Any) -> None:
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        serve_forever(server)

    monkeypatch.setattr(dashboard.WSGIServer, "serve_forever", interrupted)
    assert main(["dashboard", "tiny", "--out", str(explored), "--port", "0", "--no-browser"]) == 0
    lines = capsys.readouterr().out.splitlines()
    study = study_of(explored)
    assert lines[0].startswith("dashboard: http://127.0.0.1:")
    assert lines[0].endswith(f"/dashboard/studies/{study._study_id}")
    assert lines[-1] == "ended"


def test_dashboard_shows_the_strip_of_a_trial(explored: Path, chromium: Browser) -> None:
    study = study_of(explored)
    notes.refresh_notes(study)
    with served(explored) as address:
        chromium.open(f"{address}dashboard/studies/{study._study_id}/trials?numbers=0")
        picture = "document.querySelector('img[src^=\"/artifacts/\"]')"
        assert chromium.wait_for(f"{picture}?.naturalWidth") > 23 * 4
        assert NASTY in chromium.script("document.body.innerText")
        assert chromium.complaints == []


def test_browser_comes_in_by_the_printed_address(explored: Path, chromium: Browser) -> None:
    with served(explored, token=TOKEN, read_only=True) as address:
        chromium.open(f"{address}dashboard")
        assert "token" in chromium.script("document.body.innerText")
        chromium.open(f"{address}dashboard?token={TOKEN.replace(' ', '%20')}")
        chromium.wait_for("document.body.innerText.includes('tiny')")
        assert "token" not in chromium.script("location.href")
        status = "fetch('/api/studies/1', {method: 'DELETE'}).then(answer => answer.status)"
        assert chromium.script(status) == 405
