"""Compiling the C++ beside this file once per machine, and loading it; without a compiler there is no library.

The library is plain C, called with numbers and addresses: no torch headers, so it builds in seconds. It is kept in the
user's cache folder under a name made of everything that could make it wrong elsewhere: the source, the
compiler, the flags, the processor and torch (whose threads it shares). Where there is no other compiler, the one of
the package `ziglang` will do.
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


def compiler_flags(processor: str = "native") -> tuple[str, ...]:
    """The compiler's, for this or another processor."""
    architecture = "-mcpu" if platform.machine() in ("arm64", "aarch64") else "-march"
    return (
        "-std=c++17",
        "-O3",
        f"{architecture}={processor}",
        "-fno-math-errno",
        "-pthread",
        "-fPIC",
        "-shared",
        "-w",
    )


FLAGS = compiler_flags()


class Unavailable(Exception):
    """The reason why there is no compiled code, in a few words."""


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """The functions of models/<name>.cpp. Raises `Unavailable`, every time with the same reason."""
    reason = load_library(name)
    if isinstance(reason, str):
        raise Unavailable(reason)
    return reason


@functools.cache
def load_library(name: str) -> ctypes.CDLL | str:
    """The same, or why there is none."""
    if os.environ.get("RESTUNE_NATIVE", "1") == "0":
        return "switched off by RESTUNE_NATIVE=0"
    compiler = _compiler()
    if compiler is None:
        return "no C++ compiler found; pip install 'restune[compiler]' brings one"
    try:
        with contextlib.ExitStack() as stack:
            folder = _cache_folder() or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            built = folder / _file_name(name, compiler)
            if not built.exists():
                # Several processes may build at once: each its own file, the last rename wins.
                own = folder / f"{built.stem}-{os.getpid()}.so"
                _output(*compiler, *FLAGS, "-o", str(own), str(_source(name)))
                own.replace(built)
            return ctypes.CDLL(str(built))
    except (OSError, subprocess.SubprocessError) as error:
        return f"not built: {type(error).__name__}"


def is_to_be_built(name: str) -> bool:
    """True if `load` will have to compile, which takes from seconds to two minutes."""
    compiler, folder = _compiler(), _cache_folder()
    if compiler is None or os.environ.get("RESTUNE_NATIVE", "1") == "0":
        return False
    try:
        return folder is None or not (folder / _file_name(name, compiler)).exists()
    except (OSError, subprocess.SubprocessError):
        return False


def _source(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.cpp")


def _file_name(name: str, compiler: Sequence[str]) -> str:
    version = _output(*compiler, "--version")
    text = [path.read_text() for path in (_source(name), *sorted(_source(name).parent.glob("*.h")))]
    identity = (text, compiler, version, FLAGS, _processor(), torch.__version__)
    return f"{name}-{hashlib.sha256(repr(identity).encode()).hexdigest()[:16]}.so"


def _compiler() -> list[str] | None:
    """The command of the first one there is."""
    if named := os.environ.get("CXX"):
        return shlex.split(named)
    if found := shutil.which("g++") or shutil.which("clang++") or shutil.which("c++"):
        return [found]
    return [sys.executable, "-m", "ziglang", "c++"] if importlib.util.find_spec("ziglang") else None


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def _cache_folder() -> Path | None:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "restune"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return folder if os.access(folder, os.W_OK) else None
    return None


def _processor() -> str:
    """Abilities of the processor: code made for another one may not run."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "".join(
            sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
        )
    return platform.platform() + platform.processor()
