"""A PostgreSQL server of our own, in a folder of its own: started, stopped and thrown away."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # where Debian has it


def missing() -> str | None:
    """Why there can be no server here."""
    if _programs() is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed (pip install 'restune[postgresql]')"
    return None


@dataclass(frozen=True)
class Server:
    """A server that listens on this machine only."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql://restune@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        self._control("-o", options, "-l", str(self.folder / "log"), "-w", "start")

    def stop(self) -> None:
        """At once, its connections cut."""
        self._control("-m", "fast", "-w", "stop")

    def _control(self, *words: str) -> None:
        _run([str(_needed() / "pg_ctl"), "-D", str(self.folder / "data"), *words], self.folder)


@contextmanager
def server(folder: Path, password: str | None = None) -> Iterator[Server]:
    """A server whose files are in `folder`, which need not exist; it asks for `password` if one is given."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = ["-D", str(folder / "data"), "-U", "restune", "-E", "UTF8"]
    if password is None:
        settings += ["-A", "trust"]
    else:
        (folder / "password").write_text(password, "utf-8")
        settings += ["-A", "scram-sha-256", "--pwfile", str(folder / "password")]
    _run([str(_needed() / "initdb"), *settings], folder)
    made = Server(folder, port)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def _programs() -> Path | None:
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else next(reversed(PROGRAMS), None)


def _needed() -> Path:
    programs = _programs()
    assert programs is not None, missing()
    return programs


def _run(command: list[str], folder: Path) -> None:
    user = "postgres" if os.getuid() == 0 else None
    # What it says goes to a file: the server keeps what it was given open, and a pipe would never end.
    with (folder.parent / f"{folder.name}.txt").open("ab") as said:
        subprocess.run(command, user=user, cwd="/", stdout=said, stderr=said, check=True)
