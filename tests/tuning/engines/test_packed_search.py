"""A search that packs its trials on simulated GPUs by their memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nbt.training.results import EpochResult, TrialOutcome
from nbt.tuning.engines.gpu_packing import GpuPacking
from nbt.tuning.engines.protocol import TrialAssignment, WorkerLocation, WorkerMessage
from nbt.tuning.engines.supervisor import TrialSupervisor
from tests.tuning.fakes import EPOCHS, hashed_uniform, make_controller, open_fake_study, simulate

GIB = 1 << 30
TOTAL = 24 * GIB
CONTEXT = GIB // 2
WORKERS = 8


@dataclass(eq=False)
class Run:
    assignment: TrialAssignment
    remaining: list[EpochResult]
    location: WorkerLocation | None = None

    @property
    def share(self) -> float:
        return self.assignment.resources["GPU"]

    @property
    def memory(self) -> int:
        """1 GiB for the first trials, 2 to 6 GiB for the others, so that the first measurements are too small."""
        key = self.assignment.spec.key
        return GIB if key < "trial-0003" else int((2 + 4 * hashed_uniform(key)) * GIB)


@dataclass
class Cluster:
    """Simulated GPUs with limited memory, which run one epoch of every trial in turn."""

    supervisor: TrialSupervisor
    gpus: int
    runs: dict[str, Run] = field(default_factory=dict)
    attempts: int = 0
    trained: int = 0
    out_of_memory: int = 0
    max_running: int = 0
    shares: list[float] = field(default_factory=list)

    def run_all(self) -> None:
        while not self.supervisor.finished:
            self._start_runs()
            for name, run in list(self.runs.items()):
                self._step(name, run)

    def _start_runs(self) -> None:
        while len(self.runs) < WORKERS:
            self.attempts += 1
            assignment = self.supervisor.next_assignment(str(self.attempts))
            if assignment is None:
                break
            checkpoint = assignment.spec.checkpoint
            done = int(checkpoint.read_text()) if checkpoint is not None and checkpoint.exists() else 0
            self.runs[str(self.attempts)] = Run(assignment, simulate(assignment.spec)[done:])
            self.shares.append(assignment.resources["GPU"])
        for run in self.runs.values():
            free = [gpu for gpu in range(self.gpus) if 1 - self._used_share(gpu) >= run.share - 1e-9]
            if run.location is None and free:
                run.location = WorkerLocation("n", "alpha", "cuda:0", (str(free[0]),))
        self.max_running = max(self.max_running, sum(run.location is not None for run in self.runs.values()))

    def _on(self, gpu: int) -> list[Run]:
        placed = [run for run in self.runs.values() if run.location is not None]
        return [run for run in placed if run.location is not None and run.location.gpu_indices == (str(gpu),)]

    def _used_share(self, gpu: int) -> float:
        return sum(run.share for run in self._on(gpu))

    def _step(self, name: str, run: Run) -> None:
        if run.location is None:
            return
        trials_on_gpu = self._on(int(run.location.gpu_indices[0]))
        if sum(other.memory + CONTEXT for other in trials_on_gpu) > TOTAL:
            self.out_of_memory += 1
            del self.runs[name]
            facts = {"peak_memory_bytes": run.memory // 2, "device_memory_bytes": TOTAL}
            full = TrialOutcome(error="full", out_of_memory=True, facts=facts)
            self.supervisor.handle_message(name, WorkerMessage(outcome=full, location=run.location))
            return
        self.trained += 1
        epoch = run.remaining.pop(0)
        checkpoint = run.assignment.spec.checkpoint
        assert checkpoint is not None
        checkpoint.parent.mkdir(exist_ok=True)
        checkpoint.write_text(str(epoch.epoch))
        decision = self.supervisor.handle_message(name, WorkerMessage(epoch=epoch, location=run.location))
        if decision.stop_reason is not None or not run.remaining:
            del self.runs[name]
            facts = {"peak_memory_bytes": run.memory, "device_memory_bytes": TOTAL}
            ended = TrialOutcome(
                stopped=decision.stop_reason, curve=tuple(simulate(run.assignment.spec)[: epoch.epoch]), facts=facts
            )
            self.supervisor.handle_message(name, WorkerMessage(outcome=ended, location=run.location))


@pytest.mark.parametrize("gpus", [1, 2])
def test_out_of_memory_loses_no_trial_and_the_budget_is_exact(tmp_path: Path, gpus: int) -> None:
    store = open_fake_study(tmp_path, "14")
    controller = make_controller(store, "14", checkpoints=tmp_path / "checkpoints")
    supervisor = TrialSupervisor(WORKERS, GpuPacking({"CPU": 1.0, "GPU": 1.0}, measure_memory=True, gpus=gpus))
    supervisor.start(controller)
    cluster = Cluster(supervisor, gpus)
    cluster.run_all()
    controller.close()
    record = store.record()
    assert cluster.shares[:gpus] == [1.0] * gpus and cluster.shares[gpus] < 1
    assert cluster.max_running > gpus
    assert cluster.out_of_memory > 0, "otherwise the test shows nothing"
    assert supervisor.max_concurrent == WORKERS, "only the packing changes"
    assert record.counts() == {"complete": 14, "pruned": 0, "failed": 0, "interrupted": 0, "running": 0}
    assert record.epochs_spent == cluster.trained == 14 * EPOCHS
