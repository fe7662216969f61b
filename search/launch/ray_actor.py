"""A place on a cluster where one worker process runs: starts it there, and passes on what it says.

Ray keeps it as an actor. Nothing heavy is imported here: the worker itself is a process of its own, so that
it takes signals, and one that crashes leaves somebody to tell of it.
"""

import io
import os
import queue
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from search.launch.hidden_url import with_hidden_url

ROOT = Path(__file__).resolve().parents[2]
HEAR_S = 1.0
LAST_WORDS = 4000  # characters


class ActorPlace(NamedTuple):
    """What there is at a post."""

    host: str
    out: str
    """The folder to write to: that of the driver, or one for temporary files where that cannot be made."""
    is_shared: bool
    """Whether this folder is the very one that the driver writes to."""
    has_data: bool
    """Whether the folder of pairs is here; an empty one is where a disk is yet to be mounted."""


class ActorOutput(NamedTuple):
    """What a worker has said since it was last heard."""

    lines: list[str]
    code: int | None
    """Its exit code, once it has ended."""
    last_words: str
    """What it wrote as errors, once it has ended."""


class WorkerActor:
    """One worker process, and what it says."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.log = Path()
        self.said: queue.Queue[str | None] = queue.Queue()

    def look(self, out: str, mark: str, data: str | None) -> ActorPlace:
        """What there is here of a driver's folders: `mark` is a file that it has just written below `out`."""
        is_shared = (Path(out) / mark).exists()
        if not is_shared:
            try:
                Path(out).mkdir(parents=True, exist_ok=True)
                (Path(out) / f".writable-{os.getpid()}").touch()
                (Path(out) / f".writable-{os.getpid()}").unlink()
            except OSError:
                out = str(Path(tempfile.gettempdir()) / "restune")
        has_data = data is None or (Path(data).is_dir() and any(Path(data).iterdir()))
        return ActorPlace(socket.gethostname(), out, is_shared, has_data)

    def unpack(self, parcel: bytes, folder: str) -> None:
        """Put the pairs of a parcel into `folder`, whole or not at all; posts of one machine do so in turn."""
        target = Path(folder)
        if target.is_dir():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as partial:
            unpack_parcel(parcel, Path(partial) / "pairs")
            try:
                (Path(partial) / "pairs").rename(target)
            except OSError:
                assert target.is_dir(), "another post was faster"

    def measure(self, spec: str, arguments: Mapping[str, str]) -> float:
        """How fast the study's models train on this machine, in 10^12 multiply-adds a second."""
        import torch

        from search.launch.join import with_data_elsewhere
        from search.study import StudySpec
        from search.worker import measure_training_speed, open_data

        torch.set_num_threads(int(arguments.get("--threads", torch.get_num_threads())))
        found = here = StudySpec.model_validate_json(spec)
        if "--data" in arguments:
            sides = arguments.get("--scan-dir"), arguments.get("--clean-dir")
            here = with_data_elsewhere(found, Path(arguments["--data"]), *sides)
        split = open_data(here, Path(arguments["--out"]))
        return measure_training_speed(found, split, torch.device(arguments["--device"]))

    def start(self, arguments: Mapping[str, str], log: str) -> int:
        """Start the worker; the number of its process."""
        self.log = Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "search", "worker", "--supervised"]
        flags, environment = with_hidden_url(arguments)
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        with self.log.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [*command, *flags],
                stdin=subprocess.PIPE,  # closes when we die: then it stops
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                start_new_session=True,
            )
        assert self.process.stdout is not None
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()
        return self.process.pid

    def hear(self) -> ActorOutput:
        """What it has said since: at once if there is anything, else after a moment."""
        assert self.process is not None
        lines, until = list[str](), time.monotonic() + HEAR_S
        while True:
            try:
                line = self.said.get(timeout=0.0 if lines else max(until - time.monotonic(), 0.0))
            except queue.Empty:
                return ActorOutput(lines, None, "")
            if line is None:
                self.process.communicate()  # closes what is open between us
                code = self.process.returncode
                return ActorOutput(lines, code, self.log.read_text("utf-8", errors="replace")[-LAST_WORDS:])
            lines.append(line)

    def stop(self) -> None:
        """Ask the worker to save its trial and end."""
        if self.process is not None:
            self.process.terminate()

    def fetch(self, folder: str, names: Sequence[str]) -> dict[str, bytes]:
        """The files of these names below `folder`, as far as they are here."""
        inside = [name for name in names if is_inside(Path(folder), name)]
        return {name: path.read_bytes() for name in inside if (path := Path(folder) / name).is_file()}

    def _read(self, lines: IO[str]) -> Any:
        for line in lines:
            self.said.put(line)
        self.said.put(None)


def unpack_parcel(parcel: bytes, folder: Path) -> None:
    """Write the files of a parcel below `folder`, which is new. `ValueError` for one that `pack_pairs` did not make.

    Nothing is written outside, no link is made, and no more is written than the parcel is large.
    """
    with zipfile.ZipFile(io.BytesIO(parcel)) as archive:
        entries = archive.infolist()
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG) or entry.is_dir() or not is_inside(folder, entry.filename):
                raise ValueError(f"{entry.filename!r} is not a file of pairs")
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"{entry.filename!r} is compressed")
        if sum(entry.file_size for entry in entries) > len(parcel):
            raise ValueError("its files are larger than the parcel")
        archive.extractall(folder)


def is_inside(folder: Path, name: str) -> bool:
    """Whether `name` leads to a place below `folder`, links included."""
    if "\\" in name or "\0" in name or not name:
        return False
    whole = folder.resolve()
    return whole in (whole / name).resolve().parents
