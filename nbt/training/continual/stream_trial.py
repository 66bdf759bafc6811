"""A stream of tasks as one trial of a search."""

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
    """Result of a trial on a stream.

    Attributes:
        curve: Results of all epochs, including those before a resume.
        result: Result of the stream.
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
    known_epochs: int | None = None,
    evaluate_on: str = "val",
) -> Generator[EpochResult, bool | None, StreamTrialResult]:
    """Trains on the stream of a task and yields the epochs of each stage after its training.

    The accuracy of a stream is known at its end, so only the last epoch has one. Order and division of the tasks depend
    on the task's own seed, so that trials of one search differ only in their settings and `seed`.

    Args:
        task: A task with a scenario.
        settings: The recipe; its `epochs` are divided equally among the stages.
        seed: Seed of the training, 0 or more.
        context: Worker context to share between trials.
        checkpoint: As in `run_continual`.
        known_epochs: As in `fine_tune`.
        evaluate_on: Images that give the accuracies, "val" or "test".

    Yields:
        One `EpochResult` per epoch of the stages that the caller does not have. Sending True ends the trial after the
        current stage.

    Returns:
        A `StreamTrialResult`, the value of the generator.

    Raises:
        UsageError: As in `run_continual`.
    """
    epochs_per_stage = settings.epochs // task.tasks
    stream_settings = ContinualSettings(
        scenario=str(task.scenario), tasks=task.tasks, recipe=settings.replace(epochs=epochs_per_stage)
    )
    stream = run_continual(
        task,
        stream_settings,
        seed,
        order_seed=task.seed,
        context=context,
        evaluate_on=evaluate_on,
        checkpoint=checkpoint,
        known_tasks=None if known_epochs is None else known_epochs // epochs_per_stage,
    )
    stop = False
    try:
        score = next(stream)
        while True:
            for result in _stage_epochs(score, epochs_per_stage, task.tasks):
                stop = bool((yield result)) or stop
            score = stream.send(stop)
    except StopIteration as end:
        result = end.value
    # Stages that the caller has were not yielded, but are part of the curve.
    curve = [epoch for score in result.scores for epoch in _stage_epochs(score, epochs_per_stage, task.tasks)]
    return StreamTrialResult(tuple(curve), result)


def _stage_epochs(score: TaskScore, epochs_per_stage: int, tasks: int) -> list[EpochResult]:
    """Returns the epochs of one stage; each has the loss of the stage and an equal share of its time."""
    numbers = range((score.task - 1) * epochs_per_stage + 1, score.task * epochs_per_stage + 1)
    accuracy = sum(score.accuracies) / len(score.accuracies) if score.task == tasks else None
    return [
        EpochResult(
            epoch=number,
            train_loss=score.train_loss,
            val_loss=None,
            val_accuracy=accuracy if number == numbers[-1] else None,
            seconds=score.seconds / epochs_per_stage,
            diverged=score.diverged and number == epochs_per_stage * tasks,
        )
        for number in numbers
    ]
