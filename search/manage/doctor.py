"""Checks of this machine for a search: database, disk, devices, precision, compiled code; a line for each finding."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch
from packaging.requirements import Requirement
from torch import nn

from models.kernel_basis import triton_kernel_basis_works, why_not_compiled
from search.database import examine_database
from search.errors import UserError
from search.inference import (
    Precision,
    PrecisionName,
    available_devices,
    free_and_total_memory,
    graphics_cards,
    has_own_memory,
    model_and_capability,
    synchronise,
)

Level = Literal["ok", "note", "wrong"]

DOCTOR_TOPICS = (
    "versions",
    "database",
    "disk",
    "memory",
    "processor",
    "devices",
    "precision",
    "operator",
    "onnx",
)
LITTLE_DISK, NO_DISK = 2e9, 2e8  # bytes
LITTLE_MEMORY = 2e9
# On these, SQLite's locks cannot be relied on (sqlite.org/faq.html, question 5).
SHARED_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "lustre", "beegfs"}
SHOWN = ("torch", "optuna", "numpy", "onnxruntime")  # versions that are asked for first
TIMED_STEPS = 6
CLEARLY_SLOWER = 0.9  # times as fast


@dataclass(frozen=True)
class DoctorFinding:
    """A result of one check: its topic, a text, and a level (ok, worth knowing, or keeps searches from working)."""

    level: Level
    topic: str
    text: str


def examine_machine(url: str, out: Path) -> Iterator[DoctorFinding]:
    """Every finding, one after the other. Nothing is changed on the machine."""
    checks: tuple[Callable[[], Iterator[DoctorFinding]], ...] = (
        check_versions,
        lambda: check_database(url),
        lambda: check_disk(out),
        check_memory,
        check_processor,
        check_devices,
        check_precision,
        check_operator,
        check_onnx,
    )
    for topic, check in zip(DOCTOR_TOPICS, checks, strict=True):
        try:
            yield from check()
        except Exception as error:  # a check that fails is a finding, too
            yield DoctorFinding("wrong", topic, f"could not be examined: {type(error).__name__}: {error}")


def check_versions() -> Iterator[DoctorFinding]:
    """Versions of Python and of the installed packages, against those that this package requires."""
    shown = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in SHOWN)
    yield DoctorFinding("ok", "versions", f"Python {platform.python_version()}, {shown}")
    try:
        wanted = [Requirement(line) for line in importlib.metadata.requires("restune") or ()]
    except importlib.metadata.PackageNotFoundError:
        return
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield DoctorFinding(
                "wrong", "versions", f"{requirement.name} is not installed: pip install '{requirement}'"
            )
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            yield DoctorFinding(
                "wrong", "versions", f"{requirement.name} {found}: pip install '{requirement}'"
            )


def check_database(url: str) -> Iterator[DoctorFinding]:
    if url.startswith("sqlite:///") and not (path := Path(url.removeprefix("sqlite:///"))).exists():
        yield DoctorFinding("note", "database", f"{path}: not there yet; `python -m search run` makes it")
        return
    started = time.perf_counter()
    try:
        found = examine_database(url)
    except UserError as error:
        yield DoctorFinding("wrong", "database", str(error))
        return
    ms = 1000 * (time.perf_counter() - started)
    holds = f"{found.place}: {found.studies} studies, {found.trials} trials, layout {found.layout}"
    if found.damage:
        yield DoctorFinding("wrong", "database", f"{found.place}: damaged: {'; '.join(found.damage)}")
    if found.path is None:
        yield DoctorFinding("ok", "database", f"{holds}, answers within {ms:.0f} ms")
        return
    size = sum(part.stat().st_size for part in found.path.parent.glob(f"{found.path.name}*"))
    if not found.damage:
        yield DoctorFinding(
            "ok", "database", f"{holds}, {_size(size)}, whole, writable, journal {found.journal}"
        )
    if found.journal != "wal":
        yield DoctorFinding(
            "note", "database", f"journal is {found.journal}, not wal: several workers wait for each other"
        )
    if (kind := _file_system(found.path)) in SHARED_FILE_SYSTEMS:
        yield DoctorFinding(
            "note",
            "database",
            f"{found.path} is on {kind}, where SQLite's locks cannot be relied on: workers on several machines need "
            "--storage postgresql://...",
        )


def check_disk(out: Path) -> Iterator[DoctorFinding]:
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    usage = shutil.disk_usage(there)
    taken = {path.name: _taken(path) for path in out.iterdir()} if out.is_dir() else {}
    most = sorted(taken, key=lambda name: -taken[name])[:3]
    parts = ", ".join(f"{name} {_size(taken[name])}" for name in most)
    level: Level = "wrong" if usage.free < NO_DISK else "note" if usage.free < LITTLE_DISK else "ok"
    text = f"{_size(usage.free)} of {_size(usage.total)} free; {out} takes {_size(sum(taken.values()))}"
    yield DoctorFinding(level, "disk", text + (f" ({parts})" if parts else ""))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield DoctorFinding("wrong", "disk", f"{there}: cannot write here; --out names another folder")


def check_memory() -> Iterator[DoctorFinding]:
    found = psutil.virtual_memory()
    total, available = found.total, found.available
    if (limit := _cgroup("memory.max")) is not None and limit < total:
        total, available = limit, min(available, limit - (_cgroup("memory.current") or 0))
    text = f"{_size(available)} of {_size(total)} free"
    if available < LITTLE_MEMORY:
        yield DoctorFinding("note", "memory", f"{text}: little; --memory keeps training within a limit")
    else:
        yield DoctorFinding("ok", "memory", text)


def check_processor() -> Iterator[DoctorFinding]:
    cores = psutil.cpu_count(logical=False)
    # Not every system lets processes be bound to processors.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    wished = os.environ.get("OMP_NUM_THREADS")
    told = f" (OMP_NUM_THREADS={wished})" if wished else ""
    text = f"{cores} cores, {usable} may be used, torch has {threads} threads{told}"
    load = os.getloadavg()[0]
    if threads > usable:
        yield DoctorFinding("note", "processor", f"{text}: more threads than processors wait for each other")
    elif load > usable:
        yield DoctorFinding(
            "note", "processor", f"{text}; busy: load {load:.1f}, measured times will be long"
        )
    else:
        yield DoctorFinding("ok", "processor", text)


def check_devices() -> Iterator[DoctorFinding]:
    _, *accelerators = available_devices()
    for one in accelerators:
        text = str(one)
        if has_own_memory(one):
            free, total = free_and_total_memory(one)
            text += f": {model_and_capability(one)}, {_size(free)} of {_size(total)} free"
        yield DoctorFinding("ok", "devices", text)
    if not graphics_cards() and shutil.which("nvidia-smi"):
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        yield DoctorFinding("wrong", "devices", f"nvidia-smi is there, but torch ({built}) finds no GPU")
    elif not accelerators:
        yield DoctorFinding("ok", "devices", "cpu only")


def check_precision() -> Iterator[DoctorFinding]:
    """The precision that `auto` chooses, compared with the times of a few steps of a small network."""
    for one in available_devices():
        auto = Precision("auto", one).name
        half: PrecisionName = "bf16" if auto == "fp32" else auto
        gain = _seconds(one, "fp32") / _seconds(one, half)
        text = f"{one}: auto takes {auto}; measured on a small network, {half} is {gain:.1f} times as fast as fp32"
        surprising = gain < CLEARLY_SLOWER if auto != "fp32" else gain > 1 / CLEARLY_SLOWER
        advice = f'; precision = "{"fp32" if auto != "fp32" else half}" in the recipe may be faster'
        yield DoctorFinding(
            "note" if surprising else "ok", "precision", text + (advice if surprising else "")
        )


def check_operator() -> Iterator[DoctorFinding]:
    """Availability of KBNet's operator on each kind of device."""
    if reason := why_not_compiled():
        yield DoctorFinding(
            "note", "operator", f"cpu: not compiled ({reason}): KBNet trains several times slower"
        )
    else:
        yield DoctorFinding("ok", "operator", "cpu: compiled, agrees with its definition")
    cards = graphics_cards()
    if not cards:
        return
    if not importlib.util.find_spec("triton"):
        yield DoctorFinding("note", "operator", "cuda: no Triton: KBNet trains several times slower")
    elif triton_kernel_basis_works(cards[0], "tf32"):
        version = importlib.metadata.version("triton")
        yield DoctorFinding("ok", "operator", f"cuda: Triton {version}, agrees with its definition")
    else:
        yield DoctorFinding("note", "operator", "cuda: Triton does not work here: not used, KBNet is slower")


def check_onnx() -> Iterator[DoctorFinding]:
    """A small ONNX graph, run by onnxruntime and compared with the expected result."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negative", ends[:1], ends[1:])
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, ir_version=8, opset_imports=[opset])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array([1, -2, 3], np.float32)
    right = bool((session.run(None, {"x": x})[0] == -x).all())
    text = f"onnx {importlib.metadata.version('onnx')}, onnxruntime {onnxruntime.__version__}"
    yield DoctorFinding(
        "ok" if right else "wrong", "onnx", text + ("" if right else ": a graph computes something else")
    )


def _seconds(on: torch.device, name: PrecisionName) -> float:
    """The shortest of a few training steps."""
    context, generator = Precision(name, on, tf32=True), torch.Generator().manual_seed(0)
    channels, side = (32, 64) if on.type == "cpu" else (64, 256)
    network = nn.Sequential(*(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))).to(on)
    images = torch.rand(2, channels, side, side, generator=generator).to(on)
    times = []
    for _ in range(TIMED_STEPS):
        started = time.perf_counter()
        with context.forward():
            loss = network(images).float().square().mean()
        context.backward(loss)
        synchronise(on)
        times.append(time.perf_counter() - started)
    return min(times)


def _taken(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _file_system(path: Path) -> str:
    """The kind of file system that a file is on."""
    above = {str(folder) for folder in (path.resolve(), *path.resolve().parents)}
    mounts = [part for part in psutil.disk_partitions(all=True) if part.mountpoint in above]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""


def _cgroup(name: str) -> int | None:
    """A limit or count of the container that this process is in, if it is in one that has it."""
    try:
        text = Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _size(size: float) -> str:
    """A size in words: 3.4 MB, 12 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
