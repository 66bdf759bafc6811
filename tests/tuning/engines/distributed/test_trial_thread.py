"""The worker's side of a cluster's runs, without a cluster."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.engines.distributed.checkpoint_rate_limiter import CheckpointRateLimiter
from nbt.tuning.engines.distributed.protocol import TrialAssignment, WorkerLocation
from nbt.tuning.engines.distributed.trial_thread import TrialThread

OnEpoch = Callable[[EpochResult], str | None]


class Runner:
    """Trains for three epochs, with a checkpoint after the second, and exports."""

    device = "cpu"

    def __init__(self) -> None:
        self.closed = False
        self.found: list[bytes | None] = []

    def run(self, spec: TrialSpec, on_epoch: OnEpoch) -> TrialOutcome:
        if spec.checkpoint is not None:
            self.found.append(spec.checkpoint.read_bytes() if spec.checkpoint.exists() else None)
        curve = []
        for epoch in (1, 2, 3):
            curve.append(EpochResult(epoch, 1.0, 1.0, 0.5, 0.1))
            if epoch == 2 and spec.checkpoint is not None:
                spec.checkpoint.write_bytes(b"after 2")
            logging.getLogger("nbt").warning("epoch %d", epoch)
            if (reason := on_epoch(curve[-1])) is not None:
                return TrialOutcome(curve=tuple(curve), stopped=reason)
        if spec.export is not None:
            spec.export.mkdir()
            (spec.export / "model.json").write_bytes(b"{}")
        return TrialOutcome(curve=tuple(curve))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
def trial_thread(runner: Runner, tmp_path: Path) -> Iterator[TrialThread]:
    log, temporary = logging.getLogger("nbt"), tempfile.tempdir
    before = log.handlers, log.level, log.propagate
    trial_thread = TrialThread(
        lambda: runner, lambda device: WorkerLocation("n", "host", device, ("3",)), tmp_path / "own"
    )
    yield trial_thread
    trial_thread.close()
    log.handlers, log.propagate = before[0], before[2]
    log.setLevel(before[1])
    tempfile.tempdir = temporary


def assignment(tmp_path: Path, checkpoint: bytes | None = None) -> TrialAssignment:
    spec = TrialSpec(
        key="t", settings=TransferSettings(epochs=3), checkpoint=tmp_path / "driver.pt", export=tmp_path / "model"
    )
    return TrialAssignment(spec, checkpoint)


def test_waits_after_every_epoch_and_says_where_it_is(trial_thread: TrialThread, tmp_path: Path) -> None:
    trial_thread.start(assignment(tmp_path))
    messages = [trial_thread.next() for _ in range(4)]
    assert [one.epoch.epoch for one in messages if one.epoch is not None] == [1, 2, 3]
    outcome = messages[-1].outcome
    assert outcome is not None and len(outcome.curve) == 3
    assert outcome.facts == {"node": "host", "device": "cpu", "gpu_index": "3"}
    assert messages[0].location == WorkerLocation("n", "host", "cpu", ("3",))
    assert messages[1].logs == ((logging.WARNING, "epoch 2"),)


def test_files_travel_as_content_and_none_of_the_drivers_is_touched(trial_thread: TrialThread, tmp_path: Path) -> None:
    trial_thread.start(assignment(tmp_path))
    messages = [trial_thread.next() for _ in range(4)]
    assert [one.checkpoint for one in messages] == [None, b"after 2", None, None]
    assert messages[-1].export == {"model.json": b"{}"}
    assert {path.name for path in tmp_path.iterdir()} == {"own"}


def test_a_checkpoint_that_may_not_be_sent_yet_is_sent_when_it_may(trial_thread: TrialThread, tmp_path: Path) -> None:
    trial_thread._rate_limiter = SlowRateLimiter()
    trial_thread.start(assignment(tmp_path))
    messages = [trial_thread.next() for _ in range(4)]
    assert [one.checkpoint for one in messages] == [None, None, b"after 2", None]


class SlowRateLimiter(CheckpointRateLimiter):
    """Lets nothing through when it is asked first."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.asked = 0

    def try_acquire(self, size: int, now: float) -> bool:
        assert size == len(b"after 2")
        self.asked += 1
        return self.asked > 1


def test_continues_from_what_the_order_brings_and_from_nothing_else(
    trial_thread: TrialThread, runner: Runner, tmp_path: Path
) -> None:
    for content in (b"brought", None):
        trial_thread.start(assignment(tmp_path, content))
        while trial_thread.next().outcome is None:
            pass
        (tmp_path / "own" / "checkpoint.pt.task").touch()  # as a stream leaves that was given up
    trial_thread.start(assignment(tmp_path))
    assert not (tmp_path / "own" / "checkpoint.pt.task").exists()
    assert runner.found[:2] == [b"brought", None]


def test_a_reason_ends_the_run_with_its_outcome(trial_thread: TrialThread, tmp_path: Path) -> None:
    trial_thread.start(assignment(tmp_path))
    trial_thread.next()
    outcome = trial_thread.next("weak").outcome
    assert outcome is not None and outcome.stopped == "weak" and len(outcome.curve) == 1


def test_a_new_order_gives_up_the_old_run(trial_thread: TrialThread, tmp_path: Path) -> None:
    trial_thread.start(assignment(tmp_path))
    trial_thread.next()
    trial_thread.start(assignment(tmp_path))
    first = trial_thread.next()
    assert first.epoch is not None and first.epoch.epoch == 1


def test_closes_tools_and_removes_its_folder(trial_thread: TrialThread, runner: Runner, tmp_path: Path) -> None:
    trial_thread.start(assignment(tmp_path))
    trial_thread.next()
    trial_thread.close()
    trial_thread.close()
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

    trial_thread = TrialThread(fail_once, lambda device: WorkerLocation(), tmp_path / "own")
    try:
        trial_thread.start(assignment(tmp_path))
        messages = trial_thread.next()
        assert messages.setup_failed and messages.outcome is not None and messages.outcome.out_of_memory
        trial_thread.start(assignment(tmp_path))
        assert trial_thread.next().epoch is not None
    finally:
        trial_thread.close()
        log.handlers, log.propagate = before
        tempfile.tempdir = temporary
