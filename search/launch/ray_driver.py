"""`run` on a Ray cluster: Ray places the workers, pairs are copied to them, the best weights are copied back."""

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
from search.launch.ray_actor import ROOT, WorkerActor, WorkerHost
from search.launch.supervisor import EXIT_CODE_LOST, WorkerProcess, run_with_workers
from search.study import StudySpec
from search.trial import BEST_WEIGHTS
from search.worker import STRIP, RunOptions, data_of

SAY_WAITING_AFTER_S = 60.0
"""A message says so when a worker has waited this long for resources of the cluster."""


@dataclass(frozen=True)
class ClusterOptions:
    """Address of the cluster, and how many workers share it."""

    address: str
    """ray://HOST:PORT, HOST:PORT, auto (the cluster that this machine is part of) or local (this machine alone)."""
    workers: int | None = None
    """None: one for each share of a GPU, or one for each machine of a cluster without GPUs."""
    gpus_per_worker: float = 1.0
    on_cpu: bool = False


def run_on_cluster(spec: StudySpec, options: RunOptions, cluster_options: ClusterOptions) -> SearchOutcome:
    """Search with workers on a Ray cluster, as `run_with_workers` does with processes of this machine."""
    cluster = _Cluster(spec, replace(options, out=options.out.resolve()), cluster_options)
    try:
        return run_with_workers(spec, options, cluster.devices, cluster.start_worker, cluster.measure)
    finally:
        cluster.close()


class _Cluster:
    """The driver's connection to a cluster."""

    def __init__(self, spec: StudySpec, options: RunOptions, cluster_options: ClusterOptions) -> None:
        self.spec, self.options = spec, options
        self.ray = _connect(cluster_options.address)
        # A head node without resources runs no workers.
        nodes = [n for n in self.ray.nodes() if n["Alive"] and n["Resources"].keys() & {"CPU", "GPU"}]
        if not nodes:
            raise UserError(f"--cluster {cluster_options.address}: has neither a GPU nor a CPU to give")
        elsewhere = {node["NodeManagerHostname"] for node in nodes} - {socket.gethostname()}
        if elsewhere and options.storage.startswith("sqlite"):
            raise UserError(
                f"SQLite is for one machine, and this cluster has {', '.join(sorted(elsewhere)[:3])}; "
                "--storage postgresql://USER@HOST/NAME names a server that all of them reach"
            )
        gpus, self.share = (
            [node["Resources"].get("GPU", 0.0) for node in nodes],
            cluster_options.gpus_per_worker,
        )
        gpu_workers = (
            sum(int(count / self.share + 1e-9) for count in gpus) if not cluster_options.on_cpu else 0
        )
        workers = cluster_options.workers or gpu_workers or len(nodes)
        self.devices = (torch.device("cuda" if gpu_workers else "cpu"),) * workers
        cpus = min(node["Resources"].get("CPU", 1.0) for node in nodes)
        self.threads = max(int(cpus // -(-workers // len(nodes))), 1)
        # Other machines get a copy of this program; its dependencies must be installed there.
        packages = [str(ROOT / name) for name in ("search", "models", "data", "studies")]
        self.actor = self.ray.remote(WorkerActor).options(
            num_gpus=self.share if gpu_workers else 0,
            num_cpus=1 if gpu_workers else self.threads,
            max_concurrency=4,
            runtime_env={"py_modules": packages} if elsewhere else None,
        )
        self.started = time.monotonic()
        self.marker_file = f".cluster-{uuid.uuid4().hex}"
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / self.marker_file).touch()
        self.lock = threading.Lock()
        self.packed_pairs: Any = None

    def start_worker(
        self, index: int, arguments: Mapping[str, str], log: Path
    ) -> tuple[WorkerProcess, Iterable[str]]:
        """Start a worker wherever Ray finds resources for it."""
        worker = _RemoteWorker(self, index, dict(arguments), log)
        return worker, worker.lines()

    def measure(self, spec: StudySpec, split: Split, device: torch.device) -> float:
        """Training speed, measured on a machine of the cluster."""
        actor = self.actor.remote()
        try:
            host = self.ray.get(actor.inspect.remote(*self.inspect_arguments()))
            arguments = self.worker_arguments(actor, host, {"--device": str(self.devices[0])})
            found = self.ray.get(actor.measure.remote(spec.model_dump_json(), arguments))
            return float(found)
        except self.ray.exceptions.RayError as error:
            raise UserError(f"the cluster cannot measure how fast it trains: {first_line(error)}") from None
        finally:
            self.ray.kill(actor)

    def inspect_arguments(self) -> tuple[str, str, str | None]:
        """The arguments of `WorkerActor.inspect`."""
        data = data_of(self.spec)
        folder = str(data.dir.resolve()) if isinstance(data, PairsConfig) else None
        return str(self.options.out), self.marker_file, folder

    def worker_arguments(self, actor: Any, host: WorkerHost, arguments: Mapping[str, str]) -> dict[str, str]:
        """The flags of a worker on this host; the pairs are copied there if they are missing."""
        flags = {**arguments, "--out": host.out}
        if self.devices[0].type == "cpu":
            flags["--threads"] = str(self.threads)
        data = data_of(self.spec)
        if isinstance(data, PairsConfig):
            if host.has_data:
                named = {
                    "--scan-dir": data.scan_dir,
                    "--clean-dir": data.clean_dir,
                    "--pair-by": data.pair_by,
                }
                flags |= {"--data": str(data.dir.resolve())}
                flags |= {flag: name for flag, name in named.items() if name is not None}
            else:
                with self.lock:
                    if self.packed_pairs is None:
                        self.packed_pairs = self.ray.put(pack_pairs(data, self.options.out))
                folder = f"{host.out}/{DATA}/pairs-{self.marker_file[-8:]}"
                self.ray.get(actor.unpack_pairs.remote(self.packed_pairs, folder))
                # Names are equal there, in sub-folders as well.
                flags |= {"--data": folder, "--scan-dir": "scan", "--clean-dir": "clean", "--pair-by": "{}"}
        return flags

    def fetch_best_weights(self, actor: Any, host: WorkerHost) -> None:
        """Copy weights and pictures of the best trials from this host; delete weights that are no longer needed."""
        if host.is_shared:
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
            fetched = self.ray.get(actor.fetch.remote(host.out, wanted))
            for name, content in ((name, fetched[name]) for name in wanted if name in fetched):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                with whole_file(out / name) as partial:
                    partial.write_bytes(content)
            for trial in ranked[self.spec.keep :]:
                weights = trial_folder(study_folder(out, study), trial.number) / BEST_WEIGHTS
                weights.unlink(missing_ok=True)

    def close(self) -> None:
        (self.options.out / self.marker_file).unlink(missing_ok=True)
        self.ray.shutdown()


class _RemoteWorker:
    """A worker on the cluster, with the interface of `subprocess.Popen`; a thread follows its output."""

    def __init__(self, cluster: _Cluster, index: int, arguments: dict[str, str], log: Path) -> None:
        self.cluster, self.index, self.arguments, self.log = cluster, index, arguments, log
        self.requested_at = time.monotonic()
        self.pid = -1
        self.returncode: int | None = None
        self.has_started = self.stop_requested = False
        self.lines_to_show: queue.Queue[str | None] = queue.Queue()
        self.actor = cluster.actor.remote()
        self.thread = threading.Thread(target=self._follow_worker, daemon=True)
        self.thread.start()

    def lines(self) -> Iterator[str]:
        """The lines that it sends, until it has ended."""
        while (line := self.lines_to_show.get()) is not None:
            yield line

    def poll(self) -> int | None:
        return self.returncode

    def terminate(self) -> None:
        self.stop_requested = True
        if self.has_started:
            self.actor.stop.remote()

    def kill(self) -> None:
        self.stop_requested = True
        if self.returncode is None:
            self.cluster.ray.kill(self.actor)

    def wait(self) -> int:
        self.thread.join()
        assert self.returncode is not None
        return self.returncode

    def _follow_worker(self) -> None:
        code = EXIT_CODE_LOST
        try:
            code = self._run_to_end()
        except self.cluster.ray.exceptions.RayError as error:
            self._write(f"{type(error).__name__}: {first_line(error)}")
        except UserError as error:
            self._write(str(error))
            code = 2
        finally:
            self.cluster.ray.kill(self.actor)
            self.lines_to_show.put(None)
            self.returncode = code

    def _run_to_end(self) -> int:
        """Wait for resources, start the worker and forward its output to its end; its exit code."""
        get, actor = self.cluster.ray.get, self.actor
        inspection = actor.inspect.remote(*self.cluster.inspect_arguments())
        if not self._wait_for_resources(inspection):
            return 0
        host = get(inspection)
        arguments = self.cluster.worker_arguments(actor, host, self.arguments)
        elapsed = float(arguments["--elapsed"]) + time.monotonic() - self.requested_at
        arguments["--elapsed"] = f"{elapsed:.1f}"
        log = f"{host.out}/{self.log.parent.name}/worker-{self.index}-{host.hostname}.log"
        self.pid = get(actor.start.remote(arguments, log))
        self.has_started = True
        if self.stop_requested:
            self.terminate()
        messages = [self._started_message(host)]
        self.cluster.fetch_best_weights(actor, host)
        while True:
            output = get(actor.read_output.remote())
            for line in output.lines:
                while messages:  # not before its first line: until then it may have failed to start
                    self._say(messages.pop())
                if json.loads(line)[0] == "ended":
                    self.cluster.fetch_best_weights(actor, host)
                self.lines_to_show.put(line)
            if output.code is not None:
                self._write(output.error_output)
                return int(output.code)

    def _wait_for_resources(self, inspection: Any) -> bool:
        """True once the cluster has resources for this worker; False if it is no longer needed before that."""
        began, has_announced = time.monotonic(), False
        until = max(self.cluster.started + self.cluster.spec.timeout, began + SAY_WAITING_AFTER_S)
        while not self.cluster.ray.wait([inspection], timeout=0.5)[0]:
            if self.stop_requested or time.monotonic() > until:
                return False
            if not has_announced and time.monotonic() - began > SAY_WAITING_AFTER_S:
                has_announced = True
                self._say(f"worker {self.index} waits for room on the cluster")
        return True

    def _started_message(self, host: WorkerHost) -> str:
        own = f"; its states stay in its own {host.out}" if not host.is_shared else ""
        return f"worker {self.index} is on {host.hostname}{own}"

    def _say(self, text: str) -> None:
        self.lines_to_show.put(json.dumps(["say", {"text": text}]))

    def _write(self, text: str) -> None:
        """Append to the log of this worker, which is beside the logs of local workers."""
        with self.log.open("a", encoding="utf-8") as log:
            print(text, file=log)


def _connect(address: str) -> Any:
    """The Ray library, connected to the cluster. `UserError` if it is not installed, or the cluster is not found."""
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
