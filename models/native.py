"""Compiles the C++ beside this file once per machine and loads it; without a compiler there is none.

The library is plain C, called with numbers and addresses: no torch headers, so it builds in seconds. It is kept in the
user's cache folder under a name made of everything that could make it wrong elsewhere: the source, the
compiler, the flags, the processor and torch (whose OpenMP threads it shares, if the compiler has OpenMP). Where there
is no other compiler, the one of the package `ziglang` will do.
`RESTUNE_NATIVE=0` switches it off; nothing needs it.
"""

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch


def flags(processor: str = "native") -> tuple[str, ...]:
    """The compiler's, for this or another processor."""
    architecture = "-mcpu" if platform.machine() in ("arm64", "aarch64") else "-march"
    return (
        "-std=c++17",
        "-O3",
        f"{architecture}={processor}",
        "-fno-math-errno",
        "-fPIC",
        "-shared",
        "-w",
    )


FLAGS = flags()
# Not every compiler has OpenMP.
THREADS = ("-fopenmp", "-pthread")


class Unavailable(Exception):
    """Why there is no compiled code, in a few words."""


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """The functions of models/<name>.cpp. Raises `Unavailable`, every time with the same reason."""
    reason = load(name)
    if isinstance(reason, str):
        raise Unavailable(reason)
    return reason


@functools.cache
def load(name: str) -> ctypes.CDLL | str:
    """The same, or why there is none."""
    if os.environ.get("RESTUNE_NATIVE", "1") == "0":
        return "switched off by RESTUNE_NATIVE=0"
    compiler = _compiler()
    if compiler is None:
        return "no C++ compiler found; pip install 'restune[compiler]' brings one"
    reason = ""
    try:
        with contextlib.ExitStack() as stack:
            folder = _cache_folder() or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for threads, library in _libraries(name, compiler, folder).items():
                try:
                    return _built(library, *compiler, *FLAGS, threads, str(_source(name)))
                except (OSError, subprocess.CalledProcessError) as error:
                    reason = f"not built: {type(error).__name__}"
    except (OSError, subprocess.SubprocessError) as error:
        reason = f"not built: {type(error).__name__}"
    return reason


def is_to_be_built(name: str) -> bool:
    """Whether `load` will have to compile, which takes from seconds to two minutes."""
    compiler, folder = _compiler(), _cache_folder()
    if compiler is None or os.environ.get("RESTUNE_NATIVE", "1") == "0":
        return False
    try:
        return folder is None or not any(
            library.exists() for library in _libraries(name, compiler, folder).values()
        )
    except (OSError, subprocess.SubprocessError):
        return False


def _source(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.cpp")


def _libraries(name: str, compiler: Sequence[str], folder: Path) -> dict[str, Path]:
    """Where the library is or will be, by the flag for its threads.

    What is built already comes first: a compiler without OpenMP is not asked for it every time.
    """
    version = _output(*compiler, "--version")
    text = [path.read_text() for path in (_source(name), *sorted(_source(name).parent.glob("*.h")))]
    identity = (text, compiler, version, FLAGS, _processor(), torch.__version__)
    keys = {
        threads: hashlib.sha256(repr((*identity, threads)).encode()).hexdigest()[:16] for threads in THREADS
    }
    found = {threads: folder / f"{name}-{key}.so" for threads, key in keys.items()}
    return dict(sorted(found.items(), key=lambda item: not item[1].exists()))


def _compiler() -> list[str] | None:
    """The command of the first one there is."""
    if named := os.environ.get("CXX"):
        return shlex.split(named)
    if found := shutil.which("g++") or shutil.which("clang++") or shutil.which("c++"):
        return [found]
    return [sys.executable, "-m", "ziglang", "c++"] if importlib.util.find_spec("ziglang") else None


def _built(library: Path, *command: str) -> ctypes.CDLL:
    """The library, made by `command` if it is not there. `OSError` or `CalledProcessError` if that fails."""
    if not library.exists():
        # Several processes may build at once: each its own file, the last rename wins.
        own = library.with_name(f"{library.stem}-{os.getpid()}.so")
        try:
            _output(*command, "-o", str(own))
            ctypes.CDLL(str(own))  # a linker may leave out what it does not find
            own.replace(library)
        finally:
            own.unlink(missing_ok=True)
    return ctypes.CDLL(str(library))


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def _cache_folder() -> Path | None:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "restune"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return folder if os.access(folder, os.W_OK) else None
    return None


def _processor() -> str:
    """What the processor can do: code made for another one may not run."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "".join(
            sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
        )
    return platform.platform() + platform.processor()
