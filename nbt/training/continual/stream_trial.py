"""stream_trial: a stream of tasks as one trial of a search, epoch after epoch."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nbt.settings import TransferSettings
from nbt.settings.continual import ContinualSettings
from nbt.task.task import Task
from nbt.training.continual.run import run_continual
from nbt.training.results import EpochResult

if TYPE_CHECKING:
    from nbt.training.continual.results import ContinualResult, TaskScore
    from nbt.training.worker.context import WorkerContext


@dataclass(frozen=True, eq=False)
class StreamTrialResult:
    """What such a trial leaves behind.

    Attributes:
        curve: Its epochs, those before a resume included.
        result: The stream.
    """

    curve: tuple[EpochResult, ...]
    result: ContinualResult


def stream_trial(
    task: Task,
    settings: TransferSettings,
    seed: int = 0,
    *,
    context: WorkerContext,
    checkpoint: Path | None = None,
    evaluate_on: str = "val",
) -> Generator[EpochResult, bool | None, StreamTrialResult]:
    """Learns the task's stream, and yields the epochs of each task when it is learnt.

    The accuracy of a stream is known at its end, so only the last epoch has one. Order and division of the tasks follow
    from the task's own seed, so that trials of one search differ in nothing but their settings and `seed`.

    Args:
        task: Has a scenario.
        settings: `epochs` are those of the whole stream, the same number for each of its tasks.
        seed: Of the training.
        bench: Tools that outlive the trial.
        checkpoint: As in `run_continual`.
        evaluate_on: "val" or "test".

    Yields:
        As `fine_tune` does. Sending True in answer ends the trial there.

    Returns:
        A `StreamTrialResult`.

    Raises:
        UsageError: See `run_continual`.
    """
    each = settings.epochs // task.tasks
    stream_settings = ContinualSettings(
        scenario=str(task.scenario), tasks=task.tasks, recipe=settings.replace(epochs=each)
    )
    stream = run_continual(
        task,
        stream_settings,
        seed,
        order_seed=task.seed,
        context=context,
        evaluate_on=evaluate_on,
        checkpoint=checkpoint,
    )
    curve: list[EpochResult] = []
    stop = False
    try:
        score = next(stream)
        while True:
            for result in _epochs(score, len(curve), each, task.tasks):
                curve.append(result)
                stop = bool((yield result)) or stop
            score = stream.send(stop)
    except StopIteration as end:
        result = end.value
    # What was learnt before a resume was not yielded, and is part of the curve all the same.
    whole = [epoch for score in result.scores for epoch in _epochs(score, (score.task - 1) * each, each, task.tasks)]
    return StreamTrialResult(tuple(whole), result)


def _epochs(score: TaskScore, done: int, each: int, tasks: int) -> list[EpochResult]:
    """Returns the epochs of one task; their loss and share of the time are those of the whole task."""
    numbers = range((score.task - 1) * each + 1, score.task * each + 1)
    accuracy = sum(score.accuracies) / len(score.accuracies) if score.task == tasks else None
    return [
        EpochResult(
            epoch=number,
            train_loss=score.train_loss,
            val_loss=None,
            val_accuracy=accuracy if number == numbers[-1] else None,
            seconds=score.seconds / each,
            diverged=score.diverged and number == each * tasks,
        )
        for number in numbers
    ]
