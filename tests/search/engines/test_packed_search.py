"""A search that packs its trials on GPUs by the memory that they take, on GPUs that are imagined."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nbt.search.engines.books import Books
from nbt.search.engines.messages import Order, Place, Said
from nbt.search.engines.packing import Packing
from nbt.training.results import EpochResult, TrialOutcome
from tests.search.fakes import EPOCHS, chance, make_brain, open_fake, simulate

GIB = 1 << 30
TOTAL = 24 * GIB
CONTEXT = GIB // 2
WORKERS = 8


@dataclass(eq=False)
class Run:
    order: Order
    left: list[EpochResult]
    place: Place | None = None

    @property
    def share(self) -> float:
        return self.order.resources["GPU"]

    @property
    def need(self) -> int:
        """1 GiB of the first trials, 2 to 6 of the others: what was measured first does not hold for all."""
        key = self.order.job.key
        return GIB if key < "trial-0003" else int((2 + 4 * chance(key)) * GIB)


@dataclass
class Cluster:
    """GPUs that run an epoch of every run in turn, and have no more memory than they have."""

    books: Books
    gpus: int
    runs: dict[str, Run] = field(default_factory=dict)
    attempts: int = 0
    trained: int = 0
    out_of_memory: int = 0
    most_at_a_time: int = 0
    first: list[float] = field(default_factory=list)

    def work(self) -> None:
        while not self.books.over:
            self._hand_out()
            for name, run in list(self.runs.items()):
                self._step(name, run)

    def _hand_out(self) -> None:
        while len(self.runs) < WORKERS:
            self.attempts += 1
            order = self.books.next_order(str(self.attempts))
            if order is None:
                break
            done = int(order.checkpoint) if order.checkpoint else 0
            self.runs[str(self.attempts)] = Run(order, simulate(order.job)[done:])
            self.first.append(order.resources["GPU"])
        for run in self.runs.values():
            free = [gpu for gpu in range(self.gpus) if 1 - self._shares(gpu) >= run.share - 1e-9]
            if run.place is None and free:
                run.place = Place("n", "alpha", "cuda:0", (str(free[0]),))
        self.most_at_a_time = max(self.most_at_a_time, sum(run.place is not None for run in self.runs.values()))

    def _on(self, gpu: int) -> list[Run]:
        return [run for run in self.runs.values() if run.place is not None and run.place.gpus == (str(gpu),)]

    def _shares(self, gpu: int) -> float:
        return sum(run.share for run in self._on(gpu))

    def _step(self, name: str, run: Run) -> None:
        if run.place is None:
            return
        beside = self._on(int(run.place.gpus[0]))
        if sum(other.need + CONTEXT for other in beside) > TOTAL:
            self.out_of_memory += 1
            del self.runs[name]
            facts = {"peak_memory_bytes": run.need // 2, "device_memory_bytes": TOTAL}
            full = TrialOutcome(error="full", out_of_memory=True, facts=facts)
            self.books.hear(name, Said(outcome=full, place=run.place))
            return
        self.trained += 1
        epoch = run.left.pop(0)
        answer = self.books.hear(name, Said(epoch=epoch, checkpoint=str(epoch.epoch).encode(), place=run.place))
        if answer.reason is not None or not run.left:
            del self.runs[name]
            facts = {"peak_memory_bytes": run.need, "device_memory_bytes": TOTAL}
            ended = TrialOutcome(
                stopped=answer.reason, curve=tuple(simulate(run.order.job)[: epoch.epoch]), facts=facts
            )
            self.books.hear(name, Said(outcome=ended, place=run.place))


@pytest.mark.parametrize("gpus", [1, 2])
def test_out_of_memory_costs_no_trial_and_the_budget_is_exact(tmp_path: Path, gpus: int) -> None:
    store = open_fake(tmp_path, "14")
    brain = make_brain(store, "14", checkpoints=tmp_path / "checkpoints")
    books = Books(WORKERS, Packing({"CPU": 1.0, "GPU": 1.0}, measured=True, gpus=gpus))
    books.open(brain)
    cluster = Cluster(books, gpus)
    cluster.work()
    brain.close()
    record = store.record()
    assert cluster.first[: gpus + 1] == [*[1.0] * gpus, cluster.first[gpus]] and cluster.first[gpus] < 1
    assert cluster.most_at_a_time > gpus
    assert cluster.out_of_memory > 0, "or this shows nothing"
    assert books.at_a_time == WORKERS, "packing alone answers to it"
    assert record.counts() == {"complete": 14, "pruned": 0, "failed": 0, "interrupted": 0, "running": 0}
    assert record.epochs_spent == cluster.trained == 14 * EPOCHS
