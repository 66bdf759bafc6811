"""The worker's side of a trial, which waits after every epoch for the driver's decision; independent of Ray."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import queue
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from nbt.training.results import EpochResult, TrialSpec
from nbt.tuning.engines.log_forwarding import forward_logs
from nbt.tuning.engines.protocol import TrialAssignment, WorkerLocation, WorkerMessage
from nbt.tuning.engines.ray.worker.checkpoint_rate_limiter import CheckpointRateLimiter
from nbt.tuning.engines.worker import Runner, setup_failure

# Time for a trial to reach its next epoch, and for the runner to be closed.
_GRACE_SECONDS = 5.0


class TrialThread:
    """Runs trials one after another in a separate thread and keeps the runner between them.

    All trials run in the same thread because PyTorch has state per thread: its pool of workers, flushing of denormals.

    Args:
        open_runner: Creates the runner; called at the first trial.
        locate: Returns the location of this worker, given the runner's device; "" if the runner could not be created.
        folder: Folder for temporary files; removed by `close`.
        log_level: Minimum level of the log records that are sent to the driver.
        rate_limiter: Limit on the checkpoints that are sent; every checkpoint is sent when None.
    """

    def __init__(
        self,
        open_runner: Callable[[], Runner],
        locate: Callable[[str], WorkerLocation],
        folder: Path,
        log_level: int = logging.WARNING,
        rate_limiter: CheckpointRateLimiter | None = None,
    ) -> None:
        self._open_runner, self._locate, self._folder = open_runner, locate, folder
        self._rate_limiter = rate_limiter
        self._specs: queue.SimpleQueue[TrialSpec | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._messages: queue.SimpleQueue[WorkerMessage] = queue.SimpleQueue()
        self._running = False
        self._waiting = False
        self._spec: TrialSpec | None = None
        self._sent_stamp: tuple[int, int] | None = None
        self._logs: list[tuple[int, str]] = []
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.tempdir = str(folder)
        forward_logs(log_level, lambda level, text: self._logs.append((level, text)))
        self._thread = threading.Thread(target=self._run_trials, name="nbt-trials", daemon=True)
        self._thread.start()

    def start(self, assignment: TrialAssignment) -> None:
        """Starts a trial; a trial that is still running is abandoned."""
        self.abandon()
        spec = _with_worker_paths(assignment.spec, self._folder)
        _remove_files(spec)
        if spec.checkpoint is not None and assignment.checkpoint is not None:
            spec.checkpoint.write_bytes(assignment.checkpoint)
        self._spec, self._sent_stamp, self._running = spec, _checkpoint_stamp(spec), True
        self._specs.put(spec)

    def next_message(self, reason: str | None = None) -> WorkerMessage:
        """Lets the trial continue, or stop for `reason`, and returns its next message."""
        if self._waiting:
            self._waiting = False
            self._replies.put(reason)
        message = self._messages.get()
        self._waiting = message.epoch is not None
        self._running = message.outcome is None
        if not message.setup_failed:
            self._attach_files(message)
        message.logs, self._logs[:] = tuple(self._logs), []
        return message

    def abandon(self) -> None:
        """Ends the running trial at its next epoch and discards its messages."""
        while self._running:
            self.next_message("abandoned")

    def close(self) -> None:
        """Closes the runner and removes the temporary files; may be called twice."""
        if self._thread.is_alive():
            if self._waiting or not self._running:
                self.abandon()
            self._specs.put(None)
            self._thread.join(_GRACE_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _attach_files(self, message: WorkerMessage) -> None:
        """Adds a new checkpoint after an epoch, if the rate allows it, and the exported model after the last."""
        spec = self._spec
        assert spec is not None
        stamp = None if message.epoch is None else _checkpoint_stamp(spec)
        if spec.checkpoint is not None and stamp not in (None, self._sent_stamp):
            size = spec.checkpoint.stat().st_size
            if self._rate_limiter is None or self._rate_limiter.try_acquire(size, time.monotonic()):
                message.checkpoint, self._sent_stamp = spec.checkpoint.read_bytes(), stamp
        if spec.export is not None and message.outcome is not None and spec.export.is_dir():
            message.export = {path.name: path.read_bytes() for path in spec.export.iterdir() if path.is_file()}
            _remove_files(spec)

    def _run_trials(self) -> None:
        runner: Runner | None = None
        try:
            while (spec := self._specs.get()) is not None:
                if runner is None:
                    try:
                        runner = self._open_runner()
                    except Exception as error:
                        self._messages.put(setup_failure(error, self._locate("")))
                        continue
                location = self._locate(runner.device)
                outcome = runner.run(spec, functools.partial(self._report_epoch, location))
                self._messages.put(WorkerMessage(outcome=outcome, location=location))
            if runner is not None:
                runner.close()
        except BaseException:  # without this thread the process is useless: end it
            traceback.print_exc()
            os._exit(1)

    def _report_epoch(self, location: WorkerLocation, result: EpochResult) -> str | None:
        self._messages.put(WorkerMessage(epoch=result, location=location))
        return self._replies.get()


def _with_worker_paths(spec: TrialSpec, folder: Path) -> TrialSpec:
    """Returns the specification with its files in the worker's folder."""
    return dataclasses.replace(
        spec,
        checkpoint=None if spec.checkpoint is None else folder / "checkpoint.pt",
        export=None if spec.export is None else folder / "export",
    )


def _checkpoint_stamp(spec: TrialSpec) -> tuple[int, int] | None:
    """Returns inode and modification time (ns) of the checkpoint, which change when it is written; None without one."""
    try:
        stat = spec.checkpoint.stat() if spec.checkpoint is not None else None
    except FileNotFoundError:
        return None
    return None if stat is None else (stat.st_ino, stat.st_mtime_ns)


def _remove_files(spec: TrialSpec) -> None:
    if spec.checkpoint is not None:
        # The current stage of a stream has a separate checkpoint, whose name begins with this one's.
        for path in spec.checkpoint.parent.glob(f"{spec.checkpoint.name}*"):
            path.unlink(missing_ok=True)
    if spec.export is not None:
        shutil.rmtree(spec.export, ignore_errors=True)
