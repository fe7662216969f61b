"""Compiles the C++ beside this file once per machine and loads it; without a compiler there is none.

The library is plain C, called with numbers and addresses: no torch headers, so it builds in seconds. It is kept in the
user's cache folder under a name made of everything that could make it wrong elsewhere: the source, the
compiler, the flags, the processor and torch (whose OpenMP threads it shares).
`RESTUNE_NATIVE=0` switches it off; nothing needs it.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch


def flags(processor: str = "native") -> tuple[str, ...]:
    """The compiler's, for this or another processor."""
    return (
        "-std=c++17",
        "-O3",
        f"-march={processor}",
        "-fno-math-errno",
        "-fopenmp",
        "-fPIC",
        "-shared",
        "-w",
    )


FLAGS = flags()


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
    if os.environ.get("RESTUNE_NATIVE", "1") == "0":
        return "switched off by RESTUNE_NATIVE=0"
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
    if not compiler:
        return "no C++ compiler found"
    source = Path(__file__).with_name(f"{name}.cpp")
    try:
        version = _output(compiler, "--version")
        text = [path.read_text() for path in (source, *sorted(source.parent.glob("*.h")))]
        identity = (text, compiler, version, FLAGS, _processor(), torch.__version__)
        key = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
        with contextlib.ExitStack() as stack:
            folder = _cache_folder() or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            built = folder / f"{name}-{key}.so"
            if not built.exists():
                # Several processes may build at once: each its own file, the last rename wins.
                own = folder / f"{built.stem}-{os.getpid()}.so"
                _output(compiler, *FLAGS, "-o", str(own), str(source))
                own.replace(built)
            return ctypes.CDLL(str(built))
    except (OSError, subprocess.SubprocessError) as error:
        return f"not built: {type(error).__name__}"


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
