"""How `nbt continual` shows where it is: streams, tasks and epochs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from nbt.api._continual import StreamObserver
from nbt.cli.display.output import Output, percent
from nbt.cli.display.progress import Progress, bar_row, text_row
from nbt.report.formatting import duration
from nbt.report.streams.text import bytes_text
from nbt.training.continual.results import TaskScore
from nbt.tuning.storage.stream_record import StreamConfig, StreamRecord

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nbt.training.continual.curvature_memory import CurvatureMemory

_TASK_LABEL = re.compile(r"task (\d+) of (\d+)")


class StreamProgress(Progress, StreamObserver):
    """Shows streams: which of how many, its tasks and epochs, how the last task went, time left of the stream."""

    def __init__(self, out: Output, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(out, clock=clock)
        self._configs: Sequence[StreamConfig] = ()
        self._current: StreamConfig | None = None
        self._scores: list[TaskScore] = []
        self._finished = 0
        self._start_time, self._first_epoch = self._clock(), 0

    @property
    def kept(self) -> str:
        """What an interruption leaves, in words."""
        streams = f"{self._finished} of {len(self._configs)} streams"
        tasks = f"{len(self._scores)} task{'' if len(self._scores) == 1 else 's'}"
        if self._current is None or not self._scores:
            return f"{streams} kept" if self._finished else "nothing was finished yet"
        running = f"{tasks} of {self._current.name} kept"
        return f"{streams} and {running}" if self._finished else running

    def streams_planned(self, configs: Sequence[StreamConfig], memory: Mapping[str, CurvatureMemory]) -> None:
        """Says what is to be done, and what memory it takes."""
        self._configs = configs
        for method, one in memory.items():
            apart = f" ({one.count} of {bytes_text(one.each)})" if one.count > 1 else ""
            numbers = f"{one.parameters:,} weights"
            self._line(f"{method}: {one.kind} curvature of {numbers} takes {bytes_text(one.nbytes)}{apart}")

    def stream_started(self, config: StreamConfig, scores: Sequence[TaskScore]) -> None:
        """Turns to a stream."""
        self._current, self._scores = config, list(scores)
        self._start_time, self._first_epoch = self._clock(), len(scores) * config.settings.recipe.epochs
        self._activity = None
        resumed = f", goes on after task {len(scores)}" if scores else ""
        self._line(f"stream {self._finished + 1} of {len(self._configs)}: {config.name}{resumed}")

    def task_finished(self, config: StreamConfig, score: TaskScore) -> None:
        """Says how it went."""
        self._scores = [*self._scores[: score.task - 1], score]
        self._line(f"{config.method}, task {score.task} of {config.settings.tasks}: {_score_text(score)}")

    def stream_finished(self, record: StreamRecord, *, kept: bool) -> None:
        """Counts it."""
        self._finished += 1
        self._current, self._scores, self._activity = None, [], None
        if kept:
            self._line(f"stream {self._finished} of {len(self._configs)}: {record.config.name} was finished before")

    def update(self, label: str, done: int, total: int) -> None:
        """Takes how far something is; of a stream, its tasks speak for themselves."""
        if self._current is not None and _TASK_LABEL.fullmatch(label):
            self._activity = (label, done, total)
        else:
            super().update(label, done, total)

    def _rows(self) -> list[RenderableType]:
        if self._current is None or self._activity is None:
            return super()._rows()
        label, done, total = self._activity
        match = _TASK_LABEL.fullmatch(label)
        if match is None:
            return super()._rows()
        epochs = self._current.settings.recipe.epochs
        epoch = done - (int(match[1]) - 1) * epochs
        rows = [
            text_row(self._current.name, "", style="bold"),
            bar_row("streams", self._finished, len(self._configs), f"{self._finished} of {len(self._configs)}"),
            bar_row("tasks", done, total, f"{label}{self._left_text(done, total)}"),
            bar_row("epochs", epoch, epochs, f"{epoch} of {epochs}"),
        ]
        if self._scores:
            rows.append(text_row("last", f"task {self._scores[-1].task}: {_score_text(self._scores[-1])}"))
        return rows

    def _left_text(self, done: int, total: int) -> str:
        """Returns the time that the stream still takes, as its epochs of this session went."""
        if done <= self._first_epoch:
            return ""
        left = (total - done) * (self._clock() - self._start_time) / (done - self._first_epoch)
        return f", about {duration(left)} left"


def _score_text(score: TaskScore) -> str:
    if score.diverged:
        return f"diverged, {duration(score.seconds)}"
    learnt = score.accuracies[: score.task]
    all_so_far = f", {percent(sum(learnt) / len(learnt))} on all {score.task} so far" if len(learnt) > 1 else ""
    return f"{percent(learnt[-1])} on it{all_so_far}, {duration(score.seconds)}"
