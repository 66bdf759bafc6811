"""The clock and the time estimate of a search."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from nbt.api._prepared_search import PreparedSearch
from nbt.errors import UsageError
from nbt.tuning.job_clock import TRIALS, JobClock
from nbt.tuning.storage.records import StudyRecord

if TYPE_CHECKING:
    from nbt.task.task import Task
    from nbt.tuning.engines.base import Engine
    from nbt.tuning.job_estimate import JobEstimator


def estimate_job(
    prepared: PreparedSearch, task: Task, record: StudyRecord | None, engine: Engine, clock: JobClock
) -> JobEstimator | None:
    """Measures an epoch of the default recipe, and returns the estimator of the search; None if that is not possible.

    Args:
        prepared: The search.
        task: Its task.
        record: Its study; None if it does not exist yet.
        engine: The engine of its trials.
        clock: Its clock, to which the seconds of earlier sessions are added.

    Raises:
        UsageError: A budget in time is too short for a baseline trial, finals and last training.
    """
    if record is not None:
        clock.add(record.clock or {TRIALS: record.seconds_spent})
    estimator = _make_estimator(prepared, task, record, engine)
    budget = prepared.budget.seconds
    if estimator is not None and budget is not None and not (record and record.counts()["complete"]):
        minimum = estimator.minimum_seconds(clock.total)
        if minimum > budget:
            option = "--budget" if prepared.budget.min_gain is None else "--max-budget"
            raise UsageError(
                f"budget {prepared.budget.text}: too short for a baseline trial, finals, last training and report; on "
                f"this machine give at least {option} {10 * math.ceil(minimum / 10)}s, or fewer --epochs"
            )
    return estimator


def _make_estimator(
    prepared: PreparedSearch, task: Task, record: StudyRecord | None, engine: Engine
) -> JobEstimator | None:
    """Returns the estimator; None for streams, and if an epoch could not be measured."""
    from nbt.fit.sampling import DEFAULT_SAMPLES
    from nbt.task.summary import dataset_summary
    from nbt.tuning.baseline_recipes import baseline_recipes
    from nbt.tuning.job_estimate import JobEstimator, StoredWork, mean_relative_cost
    from nbt.tuning.relative_cost import study_cost_model

    if task.scenario is not None:
        return None
    epochs, n_train = prepared.config.epochs, len(task.split.train)
    epoch_seconds, workers = _stored_epoch_seconds(record), prepared.engine.workers
    if epoch_seconds is None:
        epoch_seconds, workers = _measure_epoch(n_train, engine, workers)
    if epoch_seconds is None:
        return None
    model = study_cost_model(prepared.config, dataset_summary(task))
    baselines = [settings for _, settings in baseline_recipes(epochs)]
    priors = prepared.fitted_priors
    is_measured = prepared.candidates is not None or (record is not None and record.profile is not None)
    return JobEstimator(
        prepared.budget,
        epochs,
        max_folds=prepared.options.final_seeds,
        epoch_seconds=epoch_seconds,
        workers=workers,
        relative_cost=mean_relative_cost(model, prepared.space, epochs, baselines, prepared.budget.trials),
        retraining_cost=model.retraining,
        profile_share=0.0 if is_measured else min(1.0, DEFAULT_SAMPLES / n_train),
        fits_models=priors is not None and not priors.is_fitted,
        stored=StoredWork() if record is None else StoredWork.of(record),
    )


def _measure_epoch(n_train: int, engine: Engine, workers: int) -> tuple[float | None, int]:
    """Returns the duration of an epoch of the default recipe in seconds, and the number of runs at a time."""
    from nbt.tuning.calibration import MAX_WORKERS, Calibration

    calibration = Calibration(n_train)
    engine.run(calibration)
    return calibration.epoch_seconds, workers if calibration.workers == MAX_WORKERS else calibration.workers


def _stored_epoch_seconds(record: StudyRecord | None) -> float | None:
    """Returns the mean duration of the epochs of the default recipe in earlier sessions; None without any."""
    from nbt.tuning.baseline_recipes import default_recipe

    if record is None:
        return None
    default = default_recipe(record.config.epochs)
    curves = [trial.curve[1:] for trial in record.trials if trial.settings == default and len(trial.curve) > 1]
    return fmean(result.seconds for result in curves[0]) if curves else None
