"""Rider: a worker's side of a run that waits after every epoch for the driver's word. It knows no Ray."""

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

from nbt.search.engines.messages import Order, Place, Said, at_worker
from nbt.search.engines.pace import Pace
from nbt.search.engines.worker import Runner, broken_outcome
from nbt.training.results import EpochResult, TrialJob, TrialOutcome

_GRACE_SECONDS = 5.0


class Rider:
    """Runs jobs one after another on a thread of its own and keeps the tools between them.

    All jobs run on one thread because torch keeps state a thread: its pool of workers, flushing of denormals.

    Args:
        open_runner: Makes the tools, at the first job.
        place: Says where this is, from the device of the tools.
        folder: For temporary files; removed by `close`.
        log_level: Of the records that are sent to the driver.
        pace: Of the checkpoints; each is sent when None.
    """

    def __init__(
        self,
        open_runner: Callable[[], Runner],
        place: Callable[[str], Place],
        folder: Path,
        log_level: int = logging.WARNING,
        pace: Pace | None = None,
    ) -> None:
        self._open, self._place, self._folder = open_runner, place, folder
        self._pace = pace
        self._jobs: queue.SimpleQueue[TrialJob | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[Said] = queue.SimpleQueue()
        self._running = False
        self._waiting = False
        self._job: TrialJob | None = None
        self._seen: tuple[int, int] | None = None
        self._logs: list[tuple[int, str]] = []
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.tempdir = str(folder)
        _forward_logs(self._logs, log_level)
        self._thread = threading.Thread(target=self._ride, name="nbt-rider", daemon=True)
        self._thread.start()

    def start(self, order: Order) -> None:
        """Begins a run; one that is still on its way is given up."""
        self.give_up()
        job = at_worker(order.job, self._folder)
        _clear(job)
        if job.checkpoint is not None and order.checkpoint is not None:
            job.checkpoint.write_bytes(order.checkpoint)
        self._job, self._seen, self._running = job, _stamp(job), True
        self._jobs.put(job)

    def next(self, reason: str | None = None) -> Said:
        """Lets the run go on, or end for a reason, and returns what comes next of it."""
        if self._waiting:
            self._waiting = False
            self._answers.put(reason)
        said = self._said.get()
        self._waiting = said.epoch is not None
        self._running = said.outcome is None
        if not said.broken:
            self._add_files(said)
        logs, self._logs[:] = tuple(self._logs), []
        said.logs = logs
        return said

    def give_up(self) -> None:
        """Ends a run that nobody wants any more, at its next epoch."""
        while self._running:
            self.next("given up")

    def close(self) -> None:
        """Frees the tools and removes the temporary files; may be called twice."""
        if self._thread.is_alive():
            if self._waiting or not self._running:
                self.give_up()
            self._jobs.put(None)
            self._thread.join(_GRACE_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _add_files(self, said: Said) -> None:
        job = self._job
        assert job is not None
        stamp = _stamp(job)
        if job.checkpoint is not None and stamp is not None and said.epoch is not None and stamp != self._seen:
            size = job.checkpoint.stat().st_size
            if self._pace is None or self._pace.may_send(size, time.monotonic()):
                said.checkpoint, self._seen = job.checkpoint.read_bytes(), stamp
        if job.export is not None and said.outcome is not None and job.export.is_dir():
            said.export = {path.name: path.read_bytes() for path in job.export.iterdir() if path.is_file()}
            _clear(job)

    def _ride(self) -> None:
        runner: Runner | None = None
        try:
            while (job := self._jobs.get()) is not None:
                if runner is None:
                    try:
                        runner = self._open()
                    except Exception as error:
                        self._said.put(Said(outcome=broken_outcome(error), broken=True, place=self._place("")))
                        continue
                place = self._place(runner.device)
                outcome = runner.run(job, functools.partial(self._ask, place))
                self._said.put(Said(outcome=_located(outcome, place), place=place))
            if runner is not None:
                runner.close()
        except BaseException:  # the thread is all there is of this process: its end must not go unseen
            traceback.print_exc()
            os._exit(1)

    def _ask(self, place: Place, result: EpochResult) -> str | None:
        self._said.put(Said(epoch=result, place=place))
        return self._answers.get()


class _LogHandler(logging.Handler):
    """Keeps log records for the next message to the driver."""

    def __init__(self, kept: list[tuple[int, str]]) -> None:
        super().__init__()
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append((record.levelno, record.getMessage()))


def _forward_logs(kept: list[tuple[int, str]], level: int) -> None:
    log = logging.getLogger("nbt")
    log.handlers = [_LogHandler(kept)]
    log.setLevel(level)
    log.propagate = False


def _located(outcome: TrialOutcome, place: Place) -> TrialOutcome:
    return dataclasses.replace(outcome, facts={**outcome.facts, **place.facts()})


def _stamp(job: TrialJob) -> tuple[int, int] | None:
    """Returns what tells one writing of the checkpoint from another, None where there is none."""
    try:
        stat = job.checkpoint.stat() if job.checkpoint is not None else None
    except FileNotFoundError:
        return None
    return None if stat is None else (stat.st_ino, stat.st_mtime_ns)


def _clear(job: TrialJob) -> None:
    if job.checkpoint is not None:
        for path in job.checkpoint.parent.glob(f"{job.checkpoint.name}*"):  # a stream's running task has its own beside
            path.unlink(missing_ok=True)
    if job.export is not None:
        shutil.rmtree(job.export, ignore_errors=True)
