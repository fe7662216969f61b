"""`run` on a Ray cluster: Ray finds places for the workers, data go along, weights of the best come back."""

import importlib
import json
import os
import queue
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from data.files import whole_file
from data.sources import PairsConfig, Split, pack_pairs
from search.database import (
    DATA,
    artifacts_folder,
    load_study,
    picture_ids,
    ranked_trials,
    study_folder,
    trial_folder,
)
from search.errors import UserError, first_line
from search.launch.in_process import SearchOutcome
from search.launch.ray_actor import ROOT, ActorPlace, WorkerActor
from search.launch.supervisor import LOST, WorkerProcess, run_with_workers
from search.study import StudySpec
from search.trial import BEST_WEIGHTS
from search.worker import STRIP, RunOptions, data_of

ROOM_S = 60.0
"""A worker waits for room on the cluster so long before that is said; until the time of the study is over."""


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster, and how workers share it."""

    address: str
    """ray://HOST:PORT, HOST:PORT, auto (the one that this machine is part of) or local (this machine, no other)."""
    workers: int | None = None
    """One for each share of a GPU, or for each machine where there are none."""
    gpus_per_worker: float = 1.0
    on_cpu: bool = False


def run_on_cluster(spec: StudySpec, options: RunOptions, how: ClusterOptions) -> SearchOutcome:
    """Work on a study with workers on a Ray cluster, as `crew.run` does with processes of this machine."""
    fleet = _Fleet(spec, replace(options, out=options.out.resolve()), how)
    try:
        return run_with_workers(spec, options, fleet.devices, fleet.hire, fleet.measure)
    finally:
        fleet.close()


class _Fleet:
    """A cluster, seen from the driver."""

    def __init__(self, spec: StudySpec, options: RunOptions, how: ClusterOptions) -> None:
        self.spec, self.options = spec, options
        self.ray = _connected(how.address)
        # A head without resources only keeps the others together.
        nodes = [n for n in self.ray.nodes() if n["Alive"] and n["Resources"].keys() & {"CPU", "GPU"}]
        if not nodes:
            raise UserError(f"--cluster {how.address}: has neither a GPU nor a CPU to give")
        elsewhere = {node["NodeManagerHostname"] for node in nodes} - {socket.gethostname()}
        if elsewhere and options.storage.startswith("sqlite"):
            raise UserError(
                f"SQLite is for one machine, and this cluster has {', '.join(sorted(elsewhere)[:3])}; "
                "--storage postgresql://USER@HOST/NAME names a server that all of them reach"
            )
        gpus, self.share = [node["Resources"].get("GPU", 0.0) for node in nodes], how.gpus_per_worker
        room = sum(int(count / self.share + 1e-9) for count in gpus) if not how.on_cpu else 0
        workers = how.workers or room or len(nodes)
        self.devices = (torch.device("cuda" if room else "cpu"),) * workers
        cpus = min(node["Resources"].get("CPU", 1.0) for node in nodes)
        self.threads = max(int(cpus // -(-workers // len(nodes))), 1)
        # Other machines get this very program; what it needs must be installed there.
        packages = [str(ROOT / name) for name in ("search", "models", "data", "studies")]
        self.actor = self.ray.remote(WorkerActor).options(
            num_gpus=self.share if room else 0,
            num_cpus=1 if room else self.threads,
            max_concurrency=4,
            runtime_env={"py_modules": packages} if elsewhere else None,
        )
        self.started = time.monotonic()
        self.mark = f".cluster-{uuid.uuid4().hex}"
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / self.mark).touch()
        self.lock = threading.Lock()
        self.packed: Any = None

    def hire(
        self, index: int, arguments: Mapping[str, str], log: Path
    ) -> tuple[WorkerProcess, Iterable[str]]:
        """A worker where Ray finds room for it."""
        worker = _Remote(self, index, dict(arguments), log)
        return worker, worker.lines()

    def measure(self, spec: StudySpec, split: Split, device: torch.device) -> float:
        """How fast models train, on a machine that trains."""
        actor = self.actor.remote()
        try:
            place = self.ray.get(actor.look.remote(*self.asked()))
            arguments = self.settle(actor, place, {"--device": str(self.devices[0])})
            found = self.ray.get(actor.measure.remote(spec.model_dump_json(), arguments))
            return float(found)
        except self.ray.exceptions.RayError as error:
            raise UserError(f"the cluster cannot measure how fast it trains: {first_line(error)}") from None
        finally:
            self.ray.kill(actor)

    def asked(self) -> tuple[str, str, str | None]:
        """What a post is to look for: see `Post.look`."""
        data = data_of(self.spec)
        folder = str(data.dir.resolve()) if isinstance(data, PairsConfig) else None
        return str(self.options.out), self.mark, folder

    def settle(self, actor: Any, place: ActorPlace, arguments: Mapping[str, str]) -> dict[str, str]:
        """The flags of a worker at this place; the pairs are brought there if they are not."""
        flags = {**arguments, "--out": place.out}
        if self.devices[0].type == "cpu":
            flags["--threads"] = str(self.threads)
        data = data_of(self.spec)
        if isinstance(data, PairsConfig):
            if place.has_data:
                named = {"--scan-dir": data.scan_dir, "--clean-dir": data.clean_dir}
                flags |= {"--data": str(data.dir.resolve())}
                flags |= {flag: name for flag, name in named.items() if name is not None}
            else:
                with self.lock:
                    if self.packed is None:
                        self.packed = self.ray.put(pack_pairs(data, self.options.out))
                folder = f"{place.out}/{DATA}/pairs-{self.mark[-8:]}"
                self.ray.get(actor.unpack.remote(self.packed, folder))
                flags |= {"--data": folder, "--scan-dir": "scan", "--clean-dir": "clean"}
        return flags

    def bring_home(self, actor: Any, place: ActorPlace) -> None:
        """Copy what this place has of the best trials to the driver's folder, and drop what is beaten."""
        if place.is_shared:
            return
        out = self.options.out
        with self.lock:
            study = load_study(self.spec.name, self.options.storage)
            ranked = ranked_trials(study)
            wanted = list[str]()
            for trial in ranked[: self.spec.keep]:
                folder = trial_folder(study_folder(Path(), study), trial.number)
                files = [folder / BEST_WEIGHTS, folder / STRIP]
                files += [artifacts_folder(Path()) / picture for picture in picture_ids(trial)]
                names = [file.as_posix() for file in files]
                wanted += [name for name in names if not (out / name).exists()]
            fetched = self.ray.get(actor.fetch.remote(place.out, wanted))
            for name, content in ((name, fetched[name]) for name in wanted if name in fetched):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                with whole_file(out / name) as partial:
                    partial.write_bytes(content)
            for trial in ranked[self.spec.keep :]:
                weights = trial_folder(study_folder(out, study), trial.number) / BEST_WEIGHTS
                weights.unlink(missing_ok=True)

    def close(self) -> None:
        (self.options.out / self.mark).unlink(missing_ok=True)
        self.ray.shutdown()


class _Remote:
    """A worker on the cluster, in the manner of `subprocess.Popen`; a thread follows what it does."""

    def __init__(self, fleet: _Fleet, index: int, arguments: dict[str, str], log: Path) -> None:
        self.fleet, self.index, self.arguments, self.log = fleet, index, arguments, log
        self.asked_at = time.monotonic()
        self.pid = -1
        self.returncode: int | None = None
        self.placed = self.unwanted = False
        self.said: queue.Queue[str | None] = queue.Queue()
        self.actor = fleet.actor.remote()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def lines(self) -> Iterator[str]:
        """What it says, until it has ended."""
        while (line := self.said.get()) is not None:
            yield line

    def poll(self) -> int | None:
        return self.returncode

    def terminate(self) -> None:
        self.unwanted = True
        if self.placed:
            self.actor.stop.remote()

    def kill(self) -> None:
        self.unwanted = True
        if self.returncode is None:
            self.fleet.ray.kill(self.actor)

    def wait(self) -> int:
        self.thread.join()
        assert self.returncode is not None
        return self.returncode

    def _follow(self) -> None:
        code = LOST
        try:
            code = self._life()
        except self.fleet.ray.exceptions.RayError as error:
            self._write(f"{type(error).__name__}: {first_line(error)}")
        except UserError as error:
            self._write(str(error))
            code = 2
        finally:
            self.fleet.ray.kill(self.actor)
            self.said.put(None)
            self.returncode = code

    def _life(self) -> int:
        """From finding a place to the end; the exit code."""
        get, actor = self.fleet.ray.get, self.actor
        look = actor.look.remote(*self.fleet.asked())
        if not self._found_room(look):
            return 0
        place = get(look)
        arguments = self.fleet.settle(actor, place, self.arguments)
        elapsed = float(arguments["--elapsed"]) + time.monotonic() - self.asked_at
        arguments["--elapsed"] = f"{elapsed:.1f}"
        log = f"{place.out}/{self.log.parent.name}/worker-{self.index}-{place.host}.log"
        self.pid = get(actor.start.remote(arguments, log))
        self.placed = True
        if self.unwanted:
            self.terminate()
        greeting = [self._greeting(place)]
        self.fleet.bring_home(actor, place)
        while True:
            heard = get(actor.hear.remote())
            for line in heard.lines:
                while greeting:  # not before it has begun: until then, it may have failed to
                    self._say(greeting.pop())
                if json.loads(line)[0] == "ended":
                    self.fleet.bring_home(actor, place)
                self.said.put(line)
            if heard.code is not None:
                self._write(heard.last_words)
                return int(heard.code)

    def _found_room(self, placed: Any) -> bool:
        """Whether there is room before nobody needs this worker any more."""
        began, told = time.monotonic(), False
        until = max(self.fleet.started + self.fleet.spec.timeout, began + ROOM_S)
        while not self.fleet.ray.wait([placed], timeout=0.5)[0]:
            if self.unwanted or time.monotonic() > until:
                return False
            if not told and time.monotonic() - began > ROOM_S:
                told = True
                self._say(f"worker {self.index} waits for room on the cluster")
        return True

    def _greeting(self, place: ActorPlace) -> str:
        own = f"; its states stay in its own {place.out}" if not place.is_shared else ""
        return f"worker {self.index} is on {place.host}{own}"

    def _say(self, text: str) -> None:
        self.said.put(json.dumps(["say", {"text": text}]))

    def _write(self, text: str) -> None:
        """Keep what a worker wrote as errors, beside the logs of workers of this machine."""
        with self.log.open("a", encoding="utf-8") as log:
            print(text, file=log)


def _connected(address: str) -> Any:
    """The library, once it is part of a cluster. `UserError` if it is missing, or there is no such cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise UserError("--cluster needs Ray: pip install 'restune[cluster]'") from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        quiet["include_dashboard"] = False
    try:
        ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, AssertionError) as error:
        raise UserError(
            f"--cluster {address}: {first_line(error)}\n"
            "Is the address right, and is RAY_AUTH_TOKEN (where the cluster has one) the same here?"
        ) from None
    return ray
