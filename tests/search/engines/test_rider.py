"""The worker's side of a cluster's runs, without a cluster."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbt.search.engines.messages import Order, Place
from nbt.search.engines.pace import Pace
from nbt.search.engines.rider import Rider
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialJob, TrialOutcome

OnEpoch = Callable[[EpochResult], str | None]


class Runner:
    """Trains for three epochs, with a checkpoint after the second, and exports."""

    device = "cpu"

    def __init__(self) -> None:
        self.closed = False
        self.found: list[bytes | None] = []

    def run(self, job: TrialJob, on_epoch: OnEpoch) -> TrialOutcome:
        if job.checkpoint is not None:
            self.found.append(job.checkpoint.read_bytes() if job.checkpoint.exists() else None)
        curve = []
        for epoch in (1, 2, 3):
            curve.append(EpochResult(epoch, 1.0, 1.0, 0.5, 0.1))
            if epoch == 2 and job.checkpoint is not None:
                job.checkpoint.write_bytes(b"after 2")
            logging.getLogger("nbt").warning("epoch %d", epoch)
            if (reason := on_epoch(curve[-1])) is not None:
                return TrialOutcome(curve=tuple(curve), stopped=reason)
        if job.export is not None:
            job.export.mkdir()
            (job.export / "model.json").write_bytes(b"{}")
        return TrialOutcome(curve=tuple(curve))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
def rider(runner: Runner, tmp_path: Path) -> Iterator[Rider]:
    log, temporary = logging.getLogger("nbt"), tempfile.tempdir
    before = log.handlers, log.level, log.propagate
    rider = Rider(lambda: runner, lambda device: Place("n", "host", device, ("3",)), tmp_path / "own")
    yield rider
    rider.close()
    log.handlers, log.propagate = before[0], before[2]
    log.setLevel(before[1])
    tempfile.tempdir = temporary


def order(tmp_path: Path, checkpoint: bytes | None = None) -> Order:
    job = TrialJob(
        key="t", settings=TransferSettings(epochs=3), checkpoint=tmp_path / "driver.pt", export=tmp_path / "model"
    )
    return Order(job, checkpoint)


def test_waits_after_every_epoch_and_says_where_it_is(rider: Rider, tmp_path: Path) -> None:
    rider.start(order(tmp_path))
    said = [rider.next() for _ in range(4)]
    assert [one.epoch.epoch for one in said if one.epoch is not None] == [1, 2, 3]
    outcome = said[-1].outcome
    assert outcome is not None and len(outcome.curve) == 3
    assert outcome.facts == {"node": "host", "device": "cpu", "gpu_index": "3"}
    assert said[0].place == Place("n", "host", "cpu", ("3",))
    assert said[1].logs == ((logging.WARNING, "epoch 2"),)


def test_files_travel_as_content_and_none_of_the_drivers_is_touched(rider: Rider, tmp_path: Path) -> None:
    rider.start(order(tmp_path))
    said = [rider.next() for _ in range(4)]
    assert [one.checkpoint for one in said] == [None, b"after 2", None, None]
    assert said[-1].export == {"model.json": b"{}"}
    assert {path.name for path in tmp_path.iterdir()} == {"own"}


def test_a_checkpoint_that_may_not_be_sent_yet_is_sent_when_it_may(rider: Rider, tmp_path: Path) -> None:
    rider._pace = SlowPace()
    rider.start(order(tmp_path))
    said = [rider.next() for _ in range(4)]
    assert [one.checkpoint for one in said] == [None, None, b"after 2", None]


class SlowPace(Pace):
    """Lets nothing through when it is asked first."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.asked = 0

    def may_send(self, size: int, now: float) -> bool:
        assert size == len(b"after 2")
        self.asked += 1
        return self.asked > 1


def test_continues_from_what_the_order_brings_and_from_nothing_else(
    rider: Rider, runner: Runner, tmp_path: Path
) -> None:
    for content in (b"brought", None):
        rider.start(order(tmp_path, content))
        while rider.next().outcome is None:
            pass
        (tmp_path / "own" / "checkpoint.pt.task").touch()  # as a stream leaves that was given up
    rider.start(order(tmp_path))
    assert not (tmp_path / "own" / "checkpoint.pt.task").exists()
    assert runner.found[:2] == [b"brought", None]


def test_a_reason_ends_the_run_with_its_outcome(rider: Rider, tmp_path: Path) -> None:
    rider.start(order(tmp_path))
    rider.next()
    outcome = rider.next("weak").outcome
    assert outcome is not None and outcome.stopped == "weak" and len(outcome.curve) == 1


def test_a_new_order_gives_up_the_old_run(rider: Rider, tmp_path: Path) -> None:
    rider.start(order(tmp_path))
    rider.next()
    rider.start(order(tmp_path))
    first = rider.next()
    assert first.epoch is not None and first.epoch.epoch == 1


def test_closes_tools_and_removes_its_folder(rider: Rider, runner: Runner, tmp_path: Path) -> None:
    rider.start(order(tmp_path))
    rider.next()
    rider.close()
    rider.close()
    assert runner.closed
    assert not (tmp_path / "own").exists()


def test_tools_that_cannot_be_made_are_told_and_tried_again(tmp_path: Path) -> None:
    log, temporary = logging.getLogger("nbt"), tempfile.tempdir
    before = log.handlers, log.propagate
    tries: list[int] = []

    def fail_once() -> Runner:
        tries.append(1)
        if len(tries) == 1:
            raise MemoryError("no room")
        return Runner()

    rider = Rider(fail_once, lambda device: Place(), tmp_path / "own")
    try:
        rider.start(order(tmp_path))
        said = rider.next()
        assert said.broken and said.outcome is not None and said.outcome.out_of_memory
        rider.start(order(tmp_path))
        assert rider.next().epoch is not None
    finally:
        rider.close()
        log.handlers, log.propagate = before
        tempfile.tempdir = temporary
