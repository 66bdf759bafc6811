"""Training on a stream: on one task after another, with an evaluation on all tasks after each.

Streams are data-, task- or class-incremental (`nbt.training.continual.scenarios`) and use a method of
`nbt.training.continual.network_learner`. Each task is trained with `fine_tune` on its training images only. Validation
images are reserved for the choice of settings in a search (`evaluate_on="val"`). A final result does not train on them
either, so that searches and final results use the same training images.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbt.progress import Progress
from nbt.settings.continual import ContinualSettings
from nbt.task.task import Task
from nbt.training.checkpoint import checkpoint_identity, load_checkpoint, save_checkpoint
from nbt.training.continual.curvature_memory import check_curvature_memory
from nbt.training.continual.learner import Learner, TaskStream
from nbt.training.continual.network_learner import make_learner
from nbt.training.continual.results import ContinualResult, TaskScore
from nbt.training.continual.scenarios import ContinualStage, class_order, make_stages
from nbt.training.export.exported_model import export_model
from nbt.training.recipe.checks import check_recipe
from nbt.training.results import EpochResult
from nbt.training.worker.context import WorkerContext


def run_continual(
    task: Task,
    settings: ContinualSettings,
    seed: int = 0,
    *,
    order_seed: int | None = None,
    context: WorkerContext | None = None,
    evaluate_on: str = "test",
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 30.0,
    known_tasks: int | None = None,
    progress: Progress | None = None,
    export: Path | None = None,
) -> Generator[TaskScore, bool | None, ContinualResult]:
    """Trains on a stream of tasks and yields after every task.

    All randomness is derived from `seed`. On a CPU, two runs are equal bit for bit except for their times, even if one
    of them was killed and resumed from its checkpoint. With the same seed, streams of all methods have the same tasks.

    A diverged training is a valid result: the accuracies of that task and of all tasks that build on it are 0.

    Args:
        task: Images, split and pretrained weights.
        settings: Settings of the stream.
        seed: Seed of the tasks and of all training, 0 or more.
        order_seed: Seed of the division into tasks and of their order; None uses `seed`.
        context: Worker context to share between streams; None creates one for this stream.
        evaluate_on: Images of each task that give its accuracies, "test" or "val"; the others are not used.
        checkpoint: File to resume from, if it exists, and to write to after every task; None writes no checkpoint.
            `fine_tune` writes its own checkpoint to the same folder during a task.
        checkpoint_seconds: Minimum time between two writes of the checkpoint of `fine_tune`.
        known_tasks: Number of tasks whose scores the caller already has. On a resume, later scores of the checkpoint
            are yielded again. If None, no score of the checkpoint is yielded.
        progress: Called as progress(description, epochs done, number of epochs) after every epoch and every task.
        export: Folder for the model after the last task, see `export_model`; None writes no model. A diverged model is
            not written.

    Yields:
        One `TaskScore` per task whose score the caller does not have. Sending True ends the stream.

    Returns:
        A `ContinualResult`, the value of the generator.

    Raises:
        UsageError: The dataset cannot be divided into such tasks, the recipe is invalid for a task, the curvatures do
            not fit into the memory, or the network cannot be linearised. It is raised before training starts.
    """
    order = seed if order_seed is None else order_seed
    stages = make_stages(task, settings.scenario, settings.tasks, order, evaluate_on=evaluate_on)
    for stage in stages:
        check_recipe(settings.recipe, len(stage.train))
    check_curvature_memory(task, settings)
    stream = TaskStream(task, settings, seed, stages, context or WorkerContext(task))
    if stream.recipe.linearized:
        stream.context.check_linearizable()
    run = _StreamRun(stream, evaluate_on, checkpoint, checkpoint_seconds, progress, export)
    restored = len(run.scores)
    for stage in stages[restored if known_tasks is None else min(known_tasks, restored) :]:
        score = run.scores[stage.number - 1] if stage.number <= restored else run.learn(stage)
        if (yield score):
            del run.scores[stage.number :]
            break
    return run.finish()


class _StreamRun:
    """State of a running stream."""

    def __init__(
        self,
        stream: TaskStream,
        evaluate_on: str,
        checkpoint: Path | None,
        checkpoint_seconds: float,
        progress: Progress | None,
        export: Path | None,
    ) -> None:
        self.stream, self.evaluate_on, self.export = stream, evaluate_on, export
        self.checkpoint, self.checkpoint_seconds, self.progress = checkpoint, checkpoint_seconds, progress
        self.learner: Learner = make_learner(stream)
        self.scores: list[TaskScore] = []
        saved = None if checkpoint is None else load_checkpoint(checkpoint, self.identity())
        if saved is None:
            has_classes = stream.settings.scenario != "class"  # otherwise no class is known before the first task
            self.untrained = self.learner.accuracies(0, evaluate_on) if has_classes else None
        else:
            self.untrained = None if saved["untrained"] is None else tuple(saved["untrained"])
            self.scores = [TaskScore.from_dict(score) for score in saved["scores"]]
            self.learner.load_state_dict(saved["learner"])

    def learn(self, stage: ContinualStage) -> TaskScore:
        """Trains on a stage, evaluates on all tasks, and writes the checkpoint."""
        started = time.perf_counter()
        if self.scores and self.scores[-1].diverged and not self.learner.recovers_from_divergence:
            score = self._make_score(stage, 0, math.inf, None, started)
        else:
            result = self.learner.learn(
                stage, self._progress_reporter(stage), self._stage_checkpoint, self.checkpoint_seconds
            )
            accuracies = None if result.diverged else self.learner.accuracies(stage.number, self.evaluate_on)
            last = stage.number == len(self.stream.stages)
            if not result.diverged and not last:
                self.learner.consolidate(stage)
            score = self._make_score(stage, result.n_train, result.train_loss, accuracies, started)
        self.scores.append(score)
        if self.export is not None and stage.number == len(self.stream.stages) and not score.diverged:
            # Before the checkpoint, so that a stream that is killed here trains its last task again.
            export_model(self.learner.trained_model(), self.stream.task, self.stream.recipe, self.export)
        self._progress_reporter(stage).finish()
        self._save()
        return score

    def finish(self) -> ContinualResult:
        """Returns the result; removes the checkpoint of a complete stream."""
        stream = self.stream
        if self.checkpoint is not None and len(self.scores) == len(stream.stages):
            self.checkpoint.unlink(missing_ok=True)
        return ContinualResult(
            settings=stream.settings,
            seed=stream.seed,
            evaluate_on=self.evaluate_on,
            class_order=class_order(stream.task, stream.stages),
            scores=tuple(self.scores),
            untrained=self.untrained,
        )

    def identity(self) -> dict[str, Any]:
        """Returns the values that a checkpoint of this stream must have."""
        task, split, settings = self.stream.task, self.stream.task.split, self.stream.settings
        fits_rows_of_some = settings.scenario == "class" and settings.has_origin_head and settings.head == "fitted"
        return checkpoint_identity(
            task=task.fingerprint,
            content_hash=task.content_hash,
            backbone=task.backbone.text,
            weights=task.weights,
            weights_hash=task.weights_hash,
            settings=settings.identity(),
            seed=self.stream.seed,
            evaluate_on=self.evaluate_on,
            parts=[int(stage.train.sum()) for stage in self.stream.stages],
            split=[task.seed, len(split.train), len(split.val), len(split.test)],
            # In version 0.1 the rows of classes still to come were 0.
            **({"rows_to_come": "random"} if fits_rows_of_some else {}),
        )

    @property
    def _stage_checkpoint(self) -> Path | None:
        """The checkpoint file of `fine_tune` during a stage."""
        return None if self.checkpoint is None else self.checkpoint.with_name(f"{self.checkpoint.name}.task")

    def _make_score(
        self, stage: ContinualStage, n_train: int, loss: float, accuracies: tuple[float, ...] | None, started: float
    ) -> TaskScore:
        """Returns the score of a stage; None as accuracies stands for a diverged training."""
        seconds = time.perf_counter() - started
        diverged = accuracies is None
        if accuracies is None:
            accuracies = (0.0,) * len(self.stream.stages)
        return TaskScore(stage.number, stage.classes, n_train, loss, accuracies, seconds, diverged=diverged)

    def _progress_reporter(self, stage: ContinualStage) -> _ProgressReporter:
        return _ProgressReporter(self.progress, stage.number, len(self.stream.stages), self.stream.recipe.epochs)

    def _save(self) -> None:
        if self.checkpoint is None or self._stage_checkpoint is None:
            return
        save_checkpoint(
            self.checkpoint,
            {
                "identity": self.identity(),
                "untrained": None if self.untrained is None else list(self.untrained),
                "scores": [score.to_dict() for score in self.scores],
                "learner": self.learner.state_dict(),
            },
        )
        self._stage_checkpoint.unlink(missing_ok=True)


@dataclass(frozen=True)
class _ProgressReporter:
    """Reports the progress of a stream after every epoch of a stage."""

    progress: Progress | None
    number: int
    tasks: int
    epochs: int

    def __call__(self, epoch: EpochResult) -> None:
        self._report((self.number - 1) * self.epochs + epoch.epoch)

    def finish(self) -> None:
        """Reports the end of the stage, also for methods without epochs."""
        self._report(self.number * self.epochs)

    def _report(self, done: int) -> None:
        if self.progress is not None:
            self.progress(f"task {self.number} of {self.tasks}", done, self.tasks * self.epochs)
