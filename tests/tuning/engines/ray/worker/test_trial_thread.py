"""The worker's side of a cluster's trials, without a cluster."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.engines.protocol import TrialAssignment, WorkerLocation
from nbt.tuning.engines.ray.worker.checkpoint_rate_limiter import CheckpointRateLimiter
from nbt.tuning.engines.ray.worker.trial_thread import TrialThread

OnEpoch = Callable[[EpochResult], str | None]


class Runner:
    """Runs three epochs, with a checkpoint after the second, and exports a model."""

    device = "cpu"

    def __init__(self) -> None:
        self.closed = False
        self.checkpoints: list[bytes | None] = []

    def run(self, spec: TrialSpec, on_epoch: OnEpoch) -> TrialOutcome:
        if spec.checkpoint is not None:
            self.checkpoints.append(spec.checkpoint.read_bytes() if spec.checkpoint.exists() else None)
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
        lambda: runner, lambda device: WorkerLocation("n", "host", device, ("3",)), tmp_path / "worker"
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
    return TrialAssignment(spec, checkpoint=checkpoint)


def test_waits_after_every_epoch_and_reports_its_location(trial_thread: TrialThread, tmp_path: Path) -> None:
    trial_thread.start(assignment(tmp_path))
    messages = [trial_thread.next_message() for _ in range(4)]
    assert [message.epoch.epoch for message in messages if message.epoch is not None] == [1, 2, 3]
    outcome = messages[-1].outcome
    assert outcome is not None and len(outcome.curve) == 3
    assert {message.location for message in messages} == {WorkerLocation("n", "host", "cpu", ("3",))}
    assert messages[1].logs == ((logging.WARNING, "epoch 2"),)


def test_files_are_sent_as_content_and_those_of_the_driver_are_not_touched(
    trial_thread: TrialThread, tmp_path: Path
) -> None:
    trial_thread.start(assignment(tmp_path))
    messages = [trial_thread.next_message() for _ in range(4)]
    assert [message.checkpoint for message in messages] == [None, b"after 2", None, None]
    assert messages[-1].export == {"model.json": b"{}"}
    assert {path.name for path in tmp_path.iterdir()} == {"worker"}


def test_a_delayed_checkpoint_is_sent_later(trial_thread: TrialThread, tmp_path: Path) -> None:
    trial_thread._rate_limiter = SlowRateLimiter()
    trial_thread.start(assignment(tmp_path))
    messages = [trial_thread.next_message() for _ in range(4)]
    assert [message.checkpoint for message in messages] == [None, None, b"after 2", None]


class SlowRateLimiter(CheckpointRateLimiter):
    """Rejects the first checkpoint and allows all later ones."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.calls = 0

    def try_acquire(self, size: int, now: float) -> bool:
        assert size == len(b"after 2")
        self.calls += 1
        return self.calls > 1


def test_continues_only_from_the_checkpoint_of_the_assignment(
    trial_thread: TrialThread, runner: Runner, tmp_path: Path
) -> None:
    for content in (b"assigned", None):
        trial_thread.start(assignment(tmp_path, content))
        while trial_thread.next_message().outcome is None:
            pass
        (tmp_path / "worker" / "checkpoint.pt.task").touch()  # as left by an abandoned stream
    trial_thread.start(assignment(tmp_path))
    assert not (tmp_path / "worker" / "checkpoint.pt.task").exists()
    assert runner.checkpoints[:2] == [b"assigned", None]


def test_a_stop_reason_ends_the_trial_with_an_outcome(trial_thread: TrialThread, tmp_path: Path) -> None:
    trial_thread.start(assignment(tmp_path))
    trial_thread.next_message()
    outcome = trial_thread.next_message("weak").outcome
    assert outcome is not None and outcome.stopped == "weak" and len(outcome.curve) == 1


def test_a_new_assignment_abandons_the_running_trial(trial_thread: TrialThread, tmp_path: Path) -> None:
    trial_thread.start(assignment(tmp_path))
    trial_thread.next_message()
    trial_thread.start(assignment(tmp_path))
    first = trial_thread.next_message()
    assert first.epoch is not None and first.epoch.epoch == 1


def test_close_closes_the_runner_and_removes_the_folder(
    trial_thread: TrialThread, runner: Runner, tmp_path: Path
) -> None:
    trial_thread.start(assignment(tmp_path))
    trial_thread.next_message()
    trial_thread.close()
    trial_thread.close()
    assert runner.closed
    assert not (tmp_path / "worker").exists()


def test_a_failed_setup_is_reported_and_retried(tmp_path: Path) -> None:
    log, temporary = logging.getLogger("nbt"), tempfile.tempdir
    before = log.handlers, log.propagate
    calls: list[int] = []

    def fail_once() -> Runner:
        calls.append(1)
        if len(calls) == 1:
            raise MemoryError("no memory")
        return Runner()

    trial_thread = TrialThread(fail_once, lambda device: WorkerLocation(), tmp_path / "worker")
    try:
        trial_thread.start(assignment(tmp_path))
        message = trial_thread.next_message()
        assert message.setup_failed and message.outcome is not None and message.outcome.out_of_memory
        trial_thread.start(assignment(tmp_path))
        assert trial_thread.next_message().epoch is not None
    finally:
        trial_thread.close()
        log.handlers, log.propagate = before
        tempfile.tempdir = temporary
