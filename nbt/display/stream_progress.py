"""Progress of `nbt continual`: streams, tasks and epochs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import RenderableType

from nbt.display.progress import Progress
from nbt.display.rows import BarRow, text_row
from nbt.report.formatting import duration, percent
from nbt.report.streams.text import bytes_text
from nbt.training.continual.results import TaskScore
from nbt.tuning.storage.stream_record import StreamConfig, StreamObserver, StreamRecord

if TYPE_CHECKING:
    from nbt.training.continual.curvature_memory import CurvatureMemory


@dataclass(eq=False)
class _Stream:
    """A running stream.

    Attributes:
        config: The stream.
        scores: Results of its tasks.
        start_time: Time of its start in this session.
        first_epoch: Number of its epochs in earlier sessions.
    """

    config: StreamConfig
    scores: list[TaskScore]
    start_time: float
    first_epoch: int


class StreamProgress(Progress, StreamObserver):
    """Shows the number of finished streams and, of the stream that reported last, tasks, epochs, result, time left."""

    def __init__(self, mode: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(mode, clock=clock)
        self._configs: Sequence[StreamConfig] = ()
        self._running: dict[str, _Stream] = {}
        self._current: _Stream | None = None
        self._finished = 0

    @property
    def stored_summary(self) -> str:
        """The streams and tasks that are stored if the command is interrupted now, as text."""
        streams = f"{self._finished} of {len(self._configs)} streams"
        tasks = ", ".join(
            f"{len(stream.scores)} task{'' if len(stream.scores) == 1 else 's'} of {stream.config.name}"
            for stream in self._running.values()
            if stream.scores
        )
        if not tasks:
            return f"{streams} stored" if self._finished else "no task finished yet"
        return f"{streams} and {tasks} stored" if self._finished else f"{tasks} stored"

    def streams_planned(self, configs: Sequence[StreamConfig], memory: Mapping[str, CurvatureMemory]) -> None:
        """Shows the memory that the curvatures of each method need."""
        self._configs = configs
        for method, needs in memory.items():
            parts = f" ({needs.count} times {bytes_text(needs.bytes_per_curvature)})" if needs.count > 1 else ""
            weights = f"{needs.parameters:,} weights"
            self._line(f"{method}: {needs.kind} curvature of {weights} needs {bytes_text(needs.nbytes)}{parts}")

    def stream_started(self, config: StreamConfig, scores: Sequence[TaskScore]) -> None:
        """Switches the display to the stream."""
        first_epoch = len(scores) * config.settings.recipe.epochs
        self._current = self._running[config.name] = _Stream(config, list(scores), self._clock(), first_epoch)
        self._activity = None
        resumed = f", resumed after task {len(scores)}" if scores else ""
        number = self._finished + len(self._running)
        self._line(f"stream {number} of {len(self._configs)}: {config.name}{resumed}")

    def task_finished(self, config: StreamConfig, score: TaskScore) -> None:
        """Shows the result of the task."""
        if config.name in self._running:
            stream = self._running[config.name]
            stream.scores = [*stream.scores[: score.task - 1], score]
        self._line(f"{config.method}, task {score.task} of {config.settings.tasks}: {_score_text(score)}")

    def stream_finished(self, record: StreamRecord, *, kept: bool) -> None:
        """Counts the stream."""
        self._finished += 1
        self._running.pop(record.config.name, None)
        self._current, self._activity = None, None
        if kept:
            self._line(f"stream {self._finished} of {len(self._configs)}: {record.config.name} is already finished")

    def stream_progress(self, config: StreamConfig, label: str, done: int, total: int) -> None:
        """Shows the progress of the tasks of a stream, for which no line is printed."""
        self._current, self._activity = self._running[config.name], (label, done, total)
        self._refresh()

    def _rows(self) -> list[RenderableType]:
        stream = self._current
        if stream is None or self._activity is None:
            return super()._rows()
        label, done, total = self._activity
        epochs = stream.config.settings.recipe.epochs
        epoch = (done - 1) % epochs + 1
        rows = [
            text_row(stream.config.name, style="bold"),
            BarRow("streams", self._finished, len(self._configs), [f"{self._finished} of {len(self._configs)}"]),
            BarRow("tasks", done, total, [self._left_text(stream, done, total), label]),
            BarRow("epochs", epoch, epochs, [f"{epoch} of {epochs}"]),
        ]
        if stream.scores:
            rows.append(text_row("last", f"task {stream.scores[-1].task}: {_score_text(stream.scores[-1])}"))
        return rows

    def _left_text(self, stream: _Stream, done: int, total: int) -> str:
        """Returns the estimated time left of the stream, from its epochs in this session."""
        if done <= stream.first_epoch:
            return ""
        left = (total - done) * (self._clock() - stream.start_time) / (done - stream.first_epoch)
        return f"about {duration(left)} left"


def _score_text(score: TaskScore) -> str:
    if score.diverged:
        return f"diverged, {duration(score.seconds)}"
    learnt = score.accuracies[: score.task]
    all_so_far = f", {percent(sum(learnt) / len(learnt))} on all {score.task} tasks so far" if len(learnt) > 1 else ""
    return f"{percent(learnt[-1])}{all_so_far}, {duration(score.seconds)}"
