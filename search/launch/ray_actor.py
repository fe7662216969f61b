"""The Ray actor that starts one worker process on a machine of the cluster, and forwards its output.

The worker is a separate process: it can receive signals, and the actor can report a crash. Nothing large is
imported here.
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
OUTPUT_TIMEOUT_S = 1.0
MAX_ERROR_OUTPUT = 4000  # characters


class WorkerHost(NamedTuple):
    """The machine on which an actor runs, and the folders that exist there."""

    hostname: str
    out: str
    """The folder to write to: that of the driver, or one for temporary files where that cannot be made."""
    is_shared: bool
    """True if the driver writes to the same folder."""
    has_data: bool
    """True if the folder of pairs is here. An empty folder does not count: a disk may not be mounted yet."""


class WorkerOutput(NamedTuple):
    """New output of a worker process."""

    lines: list[str]
    code: int | None
    """Its exit code, or None while it runs."""
    error_output: str
    """The end of its standard error, once it has ended."""


class WorkerActor:
    """One worker process and its output."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.log = Path()
        self.output_lines: queue.Queue[str | None] = queue.Queue()

    def inspect(self, out: str, marker_file: str, data: str | None) -> WorkerHost:
        """This machine, and the driver's folders on it. The driver has just written `marker_file` below `out`."""
        is_shared = (Path(out) / marker_file).exists()
        if not is_shared:
            try:
                Path(out).mkdir(parents=True, exist_ok=True)
                (Path(out) / f".writable-{os.getpid()}").touch()
                (Path(out) / f".writable-{os.getpid()}").unlink()
            except OSError:
                out = str(Path(tempfile.gettempdir()) / "restune")
        has_data = data is None or (Path(data).is_dir() and any(Path(data).iterdir()))
        return WorkerHost(socket.gethostname(), out, is_shared, has_data)

    def unpack_pairs(self, packed_pairs: bytes, folder: str) -> None:
        """Unpack an archive of pairs to `folder`, completely or not at all; several actors may do so at once."""
        target = Path(folder)
        if target.is_dir():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as partial:
            extract_pairs(packed_pairs, Path(partial) / "pairs")
            try:
                (Path(partial) / "pairs").rename(target)
            except OSError:
                assert target.is_dir(), "another actor has unpacked them"

    def measure(self, spec: str, arguments: Mapping[str, str]) -> float:
        """Training speed of the study's models on this machine, in 10^12 multiply-adds a second."""
        import torch

        from search.launch.join import with_data_elsewhere
        from search.study import StudySpec
        from search.worker import measure_training_speed, open_data

        torch.set_num_threads(int(arguments.get("--threads", torch.get_num_threads())))
        found = here = StudySpec.model_validate_json(spec)
        if "--data" in arguments:
            sides = (arguments.get(flag) for flag in ("--scan-dir", "--clean-dir", "--pair-by"))
            here = with_data_elsewhere(found, Path(arguments["--data"]), *sides)
        split = open_data(here, Path(arguments["--out"]))
        return measure_training_speed(found, split, torch.device(arguments["--device"]))

    def start(self, arguments: Mapping[str, str], log: str) -> int:
        """Start the worker; its process id."""
        self.log = Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "search", "worker", "--supervised"]
        flags, environment = with_hidden_url(arguments)
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        with self.log.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [*command, *flags],
                stdin=subprocess.PIPE,  # closes when this process ends: then the worker stops
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

    def read_output(self) -> WorkerOutput:
        """New output, at once if there is any; otherwise waits up to `OUTPUT_TIMEOUT_S` for it."""
        assert self.process is not None
        lines, until = list[str](), time.monotonic() + OUTPUT_TIMEOUT_S
        while True:
            try:
                line = self.output_lines.get(timeout=0.0 if lines else max(until - time.monotonic(), 0.0))
            except queue.Empty:
                return WorkerOutput(lines, None, "")
            if line is None:
                self.process.communicate()  # closes the pipes
                code = self.process.returncode
                return WorkerOutput(
                    lines, code, self.log.read_text("utf-8", errors="replace")[-MAX_ERROR_OUTPUT:]
                )
            lines.append(line)

    def stop(self) -> None:
        """Ask the worker to save its trial and to end."""
        if self.process is not None:
            self.process.terminate()

    def fetch(self, folder: str, names: Sequence[str]) -> dict[str, bytes]:
        """The content of these files below `folder`, by name; those that do not exist are left out."""
        inside = [name for name in names if is_inside(Path(folder), name)]
        return {name: path.read_bytes() for name in inside if (path := Path(folder) / name).is_file()}

    def _read(self, lines: IO[str]) -> Any:
        for line in lines:
            self.output_lines.put(line)
        self.output_lines.put(None)


def extract_pairs(packed_pairs: bytes, folder: Path) -> None:
    """Write packed pairs below `folder`, which is new. `ValueError` for what `pack_pairs` did not make.

    Nothing is written outside, no link is made, and no more is written than was packed.
    """
    with zipfile.ZipFile(io.BytesIO(packed_pairs)) as archive:
        entries = archive.infolist()
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG) or entry.is_dir() or not is_inside(folder, entry.filename):
                raise ValueError(f"{entry.filename!r} is not a file of pairs")
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"{entry.filename!r} is compressed")
        if sum(entry.file_size for entry in entries) > len(packed_pairs):
            raise ValueError("its files are larger than what was packed")
        archive.extractall(folder)


def is_inside(folder: Path, name: str) -> bool:
    """Whether `name` leads to a place below `folder`, links included."""
    if "\\" in name or "\0" in name or not name:
        return False
    whole = folder.resolve()
    return whole in (whole / name).resolve().parents
