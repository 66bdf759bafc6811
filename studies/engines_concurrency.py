"""Part of `bench_engines.py`: a driver with hundreds of concurrent trials, on nodes that are simulated on one machine.

Trials run in waves. Each trial of a wave reports once, waits until all have reported, and then reports as fast as the
driver accepts it. All trials are therefore running during the measurement, which excludes their start.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from engines_arm import TimedSource, engine, worker_environment
from engines_noop import RUNNER, NoopTask

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec

# Memory of a worker that imports Ray Tune without torch, and of the driver and the nodes.
WORKER_BYTES, SPARE_BYTES = 120_000_000, 2_000_000_000


class Wave:
    """A source with some trials of another source, which wait for one another after their first epoch.

    Attributes:
        name: Name of the wave.
        began: Time at which all trials had reported once, by `time.perf_counter`.
        last: Time of the last report.
        cpu_began: Like `began`, by `time.process_time`.
        cpu_last: Like `last`, by `time.process_time`.
        reports: Number of reports between `began` and `last`.
    """

    def __init__(self, name: str, source: Any, trials: int, gates: Path) -> None:
        self.name, self._source, self._left, self._gates = name, source, trials, gates
        self._expected, self._arrived = trials, 0
        self._specs: dict[str, TrialSpec] = {}
        self.began = self.last = self.cpu_began = self.cpu_last = 0.0
        self.reports = 0

    def next_trial(self) -> TrialSpec | None:
        """Returns a trial of the source until the wave is complete."""
        spec: TrialSpec | None = self._source.next_trial() if self._left else None
        if spec is None:
            return None
        self._left -= 1
        key = f"{self.name} {spec.key}"
        self._specs[key] = spec
        return dataclasses.replace(spec, key=key)

    def on_placed(self, spec: TrialSpec, location: Mapping[str, Any]) -> None:
        """Forwards a location."""
        self._source.on_placed(self._specs[spec.key], location)

    def on_epoch(self, spec: TrialSpec, result: EpochResult) -> str | None:
        """Forwards an epoch; releases all trials after the first epoch of the last one."""
        reason: str | None = self._source.on_epoch(self._specs[spec.key], result)
        if result.epoch > 1:
            self.reports += 1
            self.last, self.cpu_last = time.perf_counter(), time.process_time()
            return reason
        self._arrived += 1
        if self._arrived == self._expected:
            self.began, self.cpu_began = time.perf_counter(), time.process_time()
            (self._gates / self.name).touch()
        return reason

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Forwards an outcome."""
        self._source.on_done(self._specs.pop(spec.key), outcome)

    def on_abandoned(self, spec: TrialSpec) -> None:
        """Forwards an abandoned trial."""
        self._source.on_abandoned(self._specs.pop(spec.key))


def serve_waves(options: Mapping[str, Any], answer: Callable[[Callable[..., Any]], None]) -> None:
    """Runs waves of concurrent trials without training with an engine of nbt."""
    gates = Path(options["folder"])
    with ExitStack() as stack:
        engine_instance = stack.enter_context(engine(options, NoopTask(gates), RUNNER))
        sources: dict[str, Any] = {}

        # `brain`: whether the search controller supplies the trials; the rows of recorded results have this key.
        def block(name: str, trials: int, reports: int, brain: bool) -> dict[str, Any]:
            if brain and "controller" not in sources:
                from engines_controller import open_controller

                sources["controller"] = stack.enter_context(
                    open_controller(gates, name=f"crowd-{name}", epochs=reports + 1)
                )
            settings = TransferSettings(epochs=reports + 1)
            source = (
                sources["controller"]
                if brain
                else TimedSource([TrialSpec(key=f"t{n}", settings=settings) for n in range(trials)])
            )
            wave = Wave(name, source, trials, gates)
            started = time.perf_counter()
            engine_instance.run(wave)
            gc.collect()
            return {
                "brain": brain,
                "trials": trials,
                "handed_over_seconds": wave.began - started,
                "reports": wave.reports,
                "seconds": wave.last - wave.began,
                "driver_cpu_seconds": wave.cpu_last - wave.cpu_began,
                "driver_bytes": resident_bytes(),
            }

        answer(block)


def check_memory(trials: int) -> None:
    """Exits unless the workers fit into memory and swap; otherwise the kernel would end other programs, too."""
    rows = Path("/proc/meminfo").read_text().splitlines()
    available = sum(1024 * int(row.split()[1]) for row in rows if row.startswith(("MemAvailable:", "SwapFree:")))
    if available < (needed := trials * WORKER_BYTES + SPARE_BYTES):
        raise SystemExit(f"{trials} workers need {needed / 1e9:.0f} GB, and {available / 1e9:.0f} GB are free")


def used_swap() -> int:
    """Returns the used swap, in bytes."""
    kibibytes = {row.split(":")[0]: row.split()[1] for row in Path("/proc/meminfo").read_text().splitlines()}
    return 1024 * (int(kibibytes["SwapTotal"]) - int(kibibytes["SwapFree"]))


def resident_bytes() -> int:
    """Returns the resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclasses.dataclass
class SimulatedNodes:
    """A cluster of simulated nodes.

    Attributes:
        address: Address of the cluster.
        raylets: Process IDs of the nodes' Ray daemons.
    """

    address: str
    raylets: list[int]

    def worker_bytes(self) -> list[int]:
        """Returns the memory of each worker process in bytes, with its share of shared pages."""
        return [size for pid in _worker_processes(self.raylets) if (size := _proportional_bytes(pid))]


@contextmanager
def nodes(count: int, cpus: int) -> Iterator[SimulatedNodes]:
    """Starts a cluster of several nodes on this machine."""
    os.environ.update(worker_environment())
    # Hundreds of processes start slowly on a few cores; long timeouts keep Ray from giving them up.
    os.environ |= {
        "RAY_agent_register_timeout_ms": "600000",
        "RAY_worker_register_timeout_seconds": "1800",
        "RAY_health_check_failure_threshold": "100",
        "RAY_gcs_server_request_timeout_seconds": "600",
        # Ray's memory monitor ignores swap and would kill workers when memory without swap is scarce.
        "RAY_memory_monitor_refresh_ms": "0",
    }
    from ray.cluster_utils import Cluster

    options: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": 200 << 20}
    cluster: Any = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    try:
        for _ in range(count - 1):
            cluster.add_node(**options)
        raylets = [node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()]
        yield SimulatedNodes(cluster.address, raylets)
    finally:
        cluster.shutdown()


def _worker_processes(parents: list[int]) -> list[int]:
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:  # the process has just ended
            continue
        if int(rest.split()[1]) in parents and command.startswith(b"ray::") and b"Agent" not in command:
            pids.append(int(name.split()[0]))
    return pids


def _proportional_bytes(pid: int) -> int:
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(row.split()[1]) for row in rows if row.startswith(("Pss:", "SwapPss:")))
