"""Progress of `nbt continual`: streams, tasks and epochs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType

from nbt.api._continual import StreamObserver
from nbt.cli.display.output import Output, percent
from nbt.cli.display.progress import Progress, bar_row, text_row
from nbt.report.formatting import duration
from nbt.report.streams.text import bytes_text
from nbt.training.continual.results import TaskScore
from nbt.tuning.storage.stream_record import StreamConfig, StreamRecord

if TYPE_CHECKING:
    from nbt.training.continual.curvature_memory import CurvatureMemory

_TASK_LABEL = re.compile(r"task (\d+) of (\d+)")


class StreamProgress(Progress, StreamObserver):
    """Shows the number of finished streams and, of the current one, tasks, epochs, last result and time left."""

    def __init__(self, out: Output, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(out, clock=clock)
        self._configs: Sequence[StreamConfig] = ()
        self._current: StreamConfig | None = None
        self._scores: list[TaskScore] = []
        self._finished = 0
        self._start_time, self._first_epoch = self._clock(), 0

    @property
    def stored_summary(self) -> str:
        """The streams and tasks that are stored if the command is interrupted now, as text."""
        streams = f"{self._finished} of {len(self._configs)} streams"
        tasks = f"{len(self._scores)} task{'' if len(self._scores) == 1 else 's'}"
        if self._current is None or not self._scores:
            return f"{streams} stored" if self._finished else "no task finished yet"
        current = f"{tasks} of {self._current.name} stored"
        return f"{streams} and {current}" if self._finished else current

    def streams_planned(self, configs: Sequence[StreamConfig], memory: Mapping[str, CurvatureMemory]) -> None:
        """Shows the memory that the curvatures of each method need."""
        self._configs = configs
        for method, needs in memory.items():
            parts = f" ({needs.count} times {bytes_text(needs.bytes_per_curvature)})" if needs.count > 1 else ""
            weights = f"{needs.parameters:,} weights"
            self._line(f"{method}: {needs.kind} curvature of {weights} needs {bytes_text(needs.nbytes)}{parts}")

    def stream_started(self, config: StreamConfig, scores: Sequence[TaskScore]) -> None:
        """Switches the display to the stream."""
        self._current, self._scores = config, list(scores)
        self._start_time, self._first_epoch = self._clock(), len(scores) * config.settings.recipe.epochs
        self._activity = None
        resumed = f", resumed after task {len(scores)}" if scores else ""
        self._line(f"stream {self._finished + 1} of {len(self._configs)}: {config.name}{resumed}")

    def task_finished(self, config: StreamConfig, score: TaskScore) -> None:
        """Shows the result of the task."""
        self._scores = [*self._scores[: score.task - 1], score]
        self._line(f"{config.method}, task {score.task} of {config.settings.tasks}: {_score_text(score)}")

    def stream_finished(self, record: StreamRecord, *, kept: bool) -> None:
        """Counts the stream."""
        self._finished += 1
        self._current, self._scores, self._activity = None, [], None
        if kept:
            self._line(f"stream {self._finished} of {len(self._configs)}: {record.config.name} is already finished")

    def update(self, label: str, done: int, total: int) -> None:
        """Shows the progress of an activity, or of the tasks of the current stream, for which no line is printed."""
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
        """Returns the estimated time left of the stream, from its epochs in this session."""
        if done <= self._first_epoch:
            return ""
        left = (total - done) * (self._clock() - self._start_time) / (done - self._first_epoch)
        return f", about {duration(left)} left"


def _score_text(score: TaskScore) -> str:
    if score.diverged:
        return f"diverged, {duration(score.seconds)}"
    learnt = score.accuracies[: score.task]
    all_so_far = f", {percent(sum(learnt) / len(learnt))} on all {score.task} tasks so far" if len(learnt) > 1 else ""
    return f"{percent(learnt[-1])}{all_so_far}, {duration(score.seconds)}"
