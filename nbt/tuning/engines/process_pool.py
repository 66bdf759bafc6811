"""The engine that runs each trial in one of several worker processes of this machine."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait

from nbt.tuning.engines.base import TrialSource
from nbt.tuning.engines.cpu_threads import single_threaded
from nbt.tuning.engines.gpu_packing import LocalGpuPacking
from nbt.tuning.engines.interrupts import InterruptGuard
from nbt.tuning.engines.protocol import TrialAssignment, WorkerMessage
from nbt.tuning.engines.supervisor import TrialSupervisor
from nbt.tuning.engines.worker import WorkerSetup
from nbt.tuning.engines.worker_process import WorkerProcess, join_workers

_log = logging.getLogger("nbt")


class ProcessPoolEngine:
    """Runs several workers, one process each. Only the caller's thread accesses the source and the workers.

    Args:
        setup: What each worker needs; its number of workers is the maximum number of concurrent trials.
        measure_memory: As in `nbt.tuning.engines.local.LocalEngine`.
        spares: As in `nbt.tuning.engines.local.LocalEngine`.
    """

    def __init__(
        self, setup: WorkerSetup, measure_memory: bool = False, spares: list[WorkerProcess] | None = None
    ) -> None:
        self._setup, self._spares = setup, [] if spares is None else spares
        self._packing = LocalGpuPacking(setup.workers, _count_gpus(setup.device), measure_memory=measure_memory)
        self._supervisor = TrialSupervisor(setup.workers, self._packing)
        self._workers: dict[int, WorkerProcess] = {}  # by slot
        self._attempts = map(str, itertools.count(1))

    def run(self, source: TrialSource) -> None:
        """Runs trials until the source has none left; see `nbt.tuning.engines.local.LocalEngine.run`."""
        with single_threaded(), InterruptGuard() as guard:
            try:
                self._supervisor.start(source)
                while True:
                    with guard.deferred():
                        self._start_trials()
                    if self._supervisor.finished:
                        return
                    workers = {worker.connection: worker for worker in self._workers.values()}
                    for connection in wait(list(workers)):
                        with guard.deferred():
                            self._receive_message(workers[connection])  # type: ignore[index]
            except BaseException:
                workers_to_end = list(self._workers.values())
                for worker in workers_to_end:
                    worker.terminate()
                self._supervisor.abandon_all()
                self._join(workers_to_end)
                raise

    def start_workers(self) -> None:
        """Starts all workers; see `nbt.tuning.engines.base.Engine.start_workers`."""
        for slot in range(self._packing.max_workers):
            if slot not in self._workers:
                self._start_worker(slot, self._packing.resources())

    def close(self) -> None:
        """Ends the workers; may be called twice."""
        for worker in self._workers.values():
            worker.request_exit()
        self._join(list(self._workers.values()))

    def _start_trials(self) -> None:
        """Starts trials until all workers are busy or the source has none."""
        attempt = next(self._attempts)
        while (assignment := self._supervisor.next_assignment(attempt)) is not None:
            self._start_attempt(attempt, assignment)
            attempt = next(self._attempts)

    def _start_attempt(self, attempt: str, assignment: TrialAssignment) -> None:
        """Assigns a trial to the worker of its slot, which is started unless an idle one has the same resources."""
        for worker in [worker for worker in self._workers.values() if worker.attempt is None]:
            if worker.resources != assignment.resources or not worker.alive():
                self._end_workers([worker])
        worker = self._workers.get(assignment.slot) or self._start_worker(assignment.slot, assignment.resources)
        worker.attempt = attempt
        worker.send(assignment)
        self._supervisor.handle_message(attempt, WorkerMessage(location=worker.location))

    def _start_worker(self, slot: int, resources: Mapping[str, float]) -> WorkerProcess:
        setup = dataclasses.replace(
            self._setup, slot=slot, workers=self._packing.max_workers, log_level=_log.getEffectiveLevel()
        )
        worker = self._spares.pop() if self._spares else WorkerProcess(setup.workers)
        worker.set_up(setup, resources)
        self._workers[worker.slot] = worker
        return worker

    def _receive_message(self, worker: WorkerProcess) -> None:
        """Handles one message of a worker, or its end."""
        attempt = worker.attempt or ""
        try:
            message = worker.receive()
        except EOFError:
            (code,) = self._join([worker])
            self._supervisor.handle_worker_lost(attempt, f"worker process died (exit code {code})")
            return
        worker.location = message.location or worker.location
        decision = self._supervisor.handle_message(attempt, message)
        if message.epoch is not None:
            worker.send(decision.stop_reason)
        elif message.outcome is not None:
            worker.attempt = None
            if decision.retire_worker:
                self._end_workers([worker])

    def _end_workers(self, workers: Sequence[WorkerProcess]) -> None:
        """Ends workers, whether or not they run a trial."""
        for worker in workers:
            worker.terminate()
        self._join(workers)

    def _join(self, workers: Sequence[WorkerProcess]) -> list[int]:
        """Waits for workers that end; returns their exit codes."""
        for worker in workers:
            del self._workers[worker.slot]
        return join_workers(workers)


def _count_gpus(device: str | None) -> int:
    """Returns the number of GPUs that workers use; `device` is as in `nbt.tuning.engines.local.LocalEngine`."""
    if device is not None:
        return int(device.startswith("cuda"))
    import torch

    return torch.cuda.device_count()
