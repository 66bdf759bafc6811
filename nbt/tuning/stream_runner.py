"""Streams of tasks as runs of an engine: their specification, the messages of a worker, and its runner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbt.settings.continual import ContinualSettings
from nbt.training.continual.results import TaskScore
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.engines.worker import TrialRunner

if TYPE_CHECKING:
    from nbt.training.continual.results import ContinualResult

STREAM_RUNNER = "nbt.tuning.stream_runner:StreamRunner"
STREAM_RESULT = "stream"
"""Fact of an outcome: the `ContinualResult` of the stream."""


@dataclass(frozen=True, kw_only=True)
class StreamSpec(TrialSpec):
    """Specification of a stream; `settings` is its recipe.

    Attributes:
        stream: Settings of the stream.
    """

    stream: ContinualSettings


@dataclass(frozen=True)
class StreamEvent(EpochResult):
    """Progress of a stream, or the score of a task; the values of `EpochResult` other than its number have no meaning.

    Attributes:
        label: The current task, such as "task 2 of 5".
        done: Epochs of the stream so far.
        total: Epochs of all its tasks.
        task_score: Score of a task that has ended; None for progress.
    """

    label: str = ""
    done: int = 0
    total: int = 0
    task_score: TaskScore | None = None


class StreamRunner(TrialRunner):
    """The runner of streams, which share one `WorkerContext`; see `nbt.tuning.engines.worker.TrialRunner`."""

    def run(self, spec: TrialSpec, on_epoch: Callable[[EpochResult], str | None]) -> TrialOutcome:
        """Trains on a stream to its end; `on_epoch` receives `StreamEvent`s. A failure becomes the outcome."""
        from nbt.training.run_trial import failed_outcome

        assert isinstance(spec, StreamSpec)
        try:
            return TrialOutcome(facts={STREAM_RESULT: self._run_stream(spec, on_epoch)})
        except Exception as error:
            return failed_outcome(error, self._context)

    def _run_stream(self, spec: StreamSpec, on_epoch: Callable[[EpochResult], str | None]) -> ContinualResult:
        from nbt.training.continual.run import run_continual
        from nbt.training.run_trial import task_for_trial

        # A stream that another worker resumes repeats numbers for what the driver has already received.
        def report(label: str, done: int, total: int) -> None:
            on_epoch(StreamEvent(2 * done, 0.0, None, None, 0.0, label=label, done=done, total=total))

        run = run_continual(
            task_for_trial(spec, self._context.task),
            spec.stream,
            spec.seed,
            context=self._context,
            checkpoint=spec.checkpoint,
            progress=report,
            export=spec.export,
        )
        while True:
            try:
                score = next(run)
            except StopIteration as end:
                result: ContinualResult = end.value
                return result
            number = 2 * score.task * spec.stream.recipe.epochs + 1
            on_epoch(StreamEvent(number, score.train_loss, None, None, score.seconds, task_score=score))
