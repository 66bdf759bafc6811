"""Training with known settings: seeds, one run on train + validation, one test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from nbt.errors import NbtError, check_counts
from nbt.pipeline.loading import TaskOptions, as_task
from nbt.pipeline.results import TrainResult
from nbt.pipeline.watched import Watched
from nbt.search.records import SeedRun, TestRecord
from nbt.settings import TransferSettings, repair
from nbt.training.model_folder import check_export

if TYPE_CHECKING:
    from nbt.task.task import Task
    from nbt.training.results import EpochResult, TrialJob, TrialOutcome


class _Seeds:
    """Runs of one recipe with several seeds, then one on train + validation: the job source of `train`."""

    def __init__(self, settings: TransferSettings, seeds: int, first: int, export: Path | None) -> None:
        from nbt.training.results import TrialJob

        self._waiting = [
            TrialJob(key=f"seed-{seed}", settings=settings, seed=seed, split_seed=seed)
            for seed in range(first, first + seeds)
        ]
        self._waiting.append(
            TrialJob(
                key="train-on-all",
                settings=settings,
                seed=first,
                train_on_all=True,
                evaluate_test=True,
                export=export,
            )
        )
        self.settings = settings
        self.outcomes: dict[str, TrialOutcome] = {}
        self.jobs = tuple(self._waiting)

    def next_job(self) -> TrialJob | None:
        """Returns the next run."""
        return self._waiting.pop(0) if self._waiting else None

    def on_place(self, job: TrialJob, place: Mapping[str, Any]) -> None:
        """Nothing: no result depends on it."""

    def on_epoch(self, job: TrialJob, result: EpochResult) -> str | None:
        """Never stops a run."""
        return None

    def on_done(self, job: TrialJob, outcome: TrialOutcome) -> None:
        """Keeps an outcome.

        Raises:
            NbtError: The run failed, or its loss left the finite numbers.
        """
        if outcome.error is not None:
            raise NbtError(f"{job.key}: {outcome.error}")
        if outcome.diverged:
            raise NbtError(f"{job.key}: the loss left the finite numbers in epoch {outcome.curve[-1].epoch}")
        self.outcomes[job.key] = outcome

    def on_abandoned(self, job: TrialJob) -> None:
        """Takes a run back."""
        self._waiting.insert(0, job)


def train(
    task: Task | str | Path,
    settings: TransferSettings | None = None,
    *,
    seeds: int = 1,
    export: Path | None = None,
    **options: Unpack[TaskOptions],
) -> TrainResult:
    """Trains with known settings: `seeds` validated runs, then one on train + validation that is tested once.

    Args:
        task: As in `search`.
        settings: The recipe; the default recipe when None.
        seeds: Validated runs, with the seeds from the task's own on, each with a train/validation split of its own.
        export: Folder to write the tested model to, missing, empty, or a model folder; it has the task's seed.
        **options: As in `search`.

    Raises:
        UsageError: Something given is wrong.
        NbtError: A run failed.
    """
    from nbt.search.engines.local import LocalEngine
    from nbt.search.stats import accuracy_interval, wilson_interval

    check_counts(seeds=seeds)
    model = None if export is None else check_export(export, "--export")
    given = as_task(task, options)
    recipe = settings or TransferSettings()
    from nbt.training.recipe import check_recipe, check_start

    teacher = None if given.teacher is None else given.teacher.name
    check_start(recipe, given.backbone, given.dataset, given.weights, teacher=teacher)
    check_recipe(recipe, len(given.split.train))
    source = _Seeds(repair(recipe), seeds, given.seed, model)
    with LocalEngine(given) as engine:
        engine.run(Watched(source, options.get("progress")))
    last = source.outcomes["train-on-all"]
    if last.test_accuracy is None:
        raise NbtError("the model was trained but not tested")
    runs = tuple(
        SeedRun(seed=job.seed, curve=source.outcomes[job.key].curve) for job in source.jobs if not job.train_on_all
    )
    n_test = len(given.split.test)
    test = TestRecord(
        name="test", accuracy=wilson_interval(last.test_accuracy, n_test), loss=_finite(last.test_loss), n=n_test
    )
    return TrainResult(source.settings, runs, accuracy_interval([run.val_accuracy for run in runs]), test, export)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
