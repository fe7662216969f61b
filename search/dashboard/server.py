"""optuna-dashboard on a database of studies, with their pictures: for this machine, or behind a token."""

import os
import secrets
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socketserver import ThreadingMixIn
from types import FrameType
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna_dashboard

from search.dashboard.auth import SHORTEST_TOKEN, AccessControl, is_loopback
from search.dashboard.notes import refresh_notes
from search.database import artifact_store, list_studies, load_study, open_database, study_id, why_not_ours
from search.errors import UserError

REFRESH_EVERY_S = 10.0
PATIENCE_S = 30  # with a client that has connected and says nothing


@dataclass(frozen=True)
class DashboardOptions:
    """Settings of the dashboard: its database and study, its address, and access to it."""

    url: str
    artifacts: Path
    study: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    read_only: bool = False
    browser: bool = True


class _Server(ThreadingMixIn, WSGIServer):
    """A thread per request, as the dashboard's own command has it; none of them holds up the end."""

    daemon_threads = True
    block_on_close = False


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    """A request handler that does not log every request."""

    timeout = PATIENCE_S

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _say(line: str) -> None:
    print(line, flush=True)  # at once, though the output may go to a file


def serve_dashboard(options: DashboardOptions, say: Callable[[str], None] = _say) -> None:
    """Serve until Ctrl-C or SIGTERM. Notes and plots are brought up to date at the start and meanwhile."""
    token = _token(options)
    database = open_database(options.url, create=False)
    with _server(database, options, token) as server:
        address, port = options.host.strip("[]"), server.server_address[1]
        if address in ("0.0.0.0", "::"):
            address = socket.gethostname()
        page_url = f"http://{f'[{address}]' if ':' in address else address}:{port}/"
        if options.study is not None:
            page_url += (
                f"dashboard/studies/{study_id(load_study(options.study, options.url, of_anyone=True))}"
            )
        say(f"dashboard: {page_url}{f'?token={token}' if token else ''}")
        if not is_loopback(options.host):
            say(
                "open to the network, not encrypted; safer: serve on 127.0.0.1 and use "
                f"ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}"
            )
        if options.read_only:
            say("changes from the browser are refused")
        for study in list_studies(database):
            if why := why_not_ours(study):
                say(f"{study.study_name}: {why}; shown as it is, without notes")
        say("Ctrl-C ends it")
        done = threading.Event()
        threading.Thread(target=_keep_notes, args=(database, done), daemon=True).start()
        if options.browser and _has_screen():
            webbrowser.open(f"{page_url}?token={token}" if token else page_url)
        try:
            with _sigterm_interrupts(), suppress(KeyboardInterrupt):
                server.serve_forever()
        finally:
            done.set()
    say("ended")


def _token(options: DashboardOptions) -> str | None:
    """The token to ask for; made up where one is needed and none is given."""
    if options.token is not None:
        if len(options.token) < SHORTEST_TOKEN:
            raise UserError(
                f"--token: has {len(options.token)} characters; at least {SHORTEST_TOKEN} are needed, or leave it out"
            )
        return options.token
    return None if is_loopback(options.host) else secrets.token_urlsafe(24)


@contextmanager
def _server(database: Any, options: DashboardOptions, token: str | None) -> Iterator[WSGIServer]:
    if not 0 <= options.port < 2**16:
        raise UserError(f"--port {options.port}: not a port; write 0 (any free one) to 65535")
    application = optuna_dashboard.wsgi(database, artifact_store=artifact_store(options.artifacts))
    access = AccessControl(application, token, options.read_only)
    kind = _Server6 if ":" in options.host else _Server
    try:
        server = make_server(options.host.strip("[]"), options.port, access, kind, _Handler)
    except OSError as error:
        raise UserError(
            f"--host {options.host} --port {options.port}: cannot be used: {error.strerror or error}; "
            "--port 0 takes any free one"
        ) from None
    with server:
        yield server


def _keep_notes(database: Any, done: threading.Event) -> None:
    """Refresh the notes of all studies until `done`."""
    while True:
        # A busy or read-only database is no reason to stop: the next round tries again.
        with suppress(Exception):
            for study in list_studies(database):
                if why_not_ours(study) is None:
                    refresh_notes(study)
        if done.wait(REFRESH_EVERY_S):
            return


def _has_screen() -> bool:
    """False where no browser would open, or one in this terminal."""
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
