"""Recorded tables without training: curves that are computed from the settings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable, TableHeader, describe_dimensions
from nbt.tuning.experience.recording import PlannedRun, plan_runs
from nbt.tuning.space.space import Space

LENGTH = 6
TECHNIQUES = (
    *("zap_period", "zap_fraction", "zap_scale", "head_scale", "feature_norm", "stall", "head_lr_multiplier"),
    *("init", "blend", "linearized", "target_scale"),
)
FULL_SPACE = Space.load("non_binary")
# The dimensions that every recorded task varies.
SPACE = FULL_SPACE.without(TECHNIQUES)


def header(**changes: Any) -> TableHeader:
    values: dict[str, Any] = {
        "dataset": "birds",
        "backbone": "conv3",
        "weights": "default",
        "data_hash": "d1",
        "weights_hash": "w1",
        "image_size": 28,
        "classes": None,
        "shots": None,
        "epochs": LENGTH,
        "seed": 0,
        "dimensions": describe_dimensions(SPACE),
        "facts": {"classes": 5, "validation_images": 100, "test_images": 400},
        "watched": 400,
    }
    return TableHeader(**{**values, **changes})


def true_accuracy(settings: TransferSettings) -> float:
    """Returns the true accuracy of settings, which is highest at a head rate of 0.1 with half of the units frozen."""
    distance = abs(math.log10(settings.head_lr) + 1) + abs(settings.frozen_depth - 0.5)
    return max(0.05, 0.9 - 0.2 * distance)


def make_curve(end: float, test: float | None, length: int = LENGTH) -> tuple[EpochResult, ...]:
    """Returns a rising curve; the last epoch is the best."""
    return tuple(
        EpochResult(
            epoch=epoch,
            train_loss=2.0 / epoch,
            val_loss=1.0 - end * epoch / length,
            val_accuracy=end * (0.5 + 0.5 * epoch / length),
            seconds=1.0,
            watched_accuracy=None if test is None else test * (0.5 + 0.5 * epoch / length),
            metrics={"balanced_accuracy": end * 0.5, "macro_f1": end * 0.25, "auroc": 0.5 + 0.25 * epoch / length},
            watched_metrics={} if test is None else {"balanced_accuracy": test * 0.5, "log_loss": 2.0 - test},
        )
        for epoch in range(1, length + 1)
    )


def make_run(planned: PlannedRun, noise: float = 0.01, salt: int = 0) -> RecordedRun:
    rng = np.random.default_rng([planned.setting, planned.seed, salt])
    value = true_accuracy(planned.settings)
    val, test = (float(np.clip(value + noise * rng.standard_normal(), 0, 1)) for _ in range(2))
    return RecordedRun(
        setting=planned.setting,
        seed=planned.seed,
        origin=planned.origin,
        settings=planned.settings,
        curve=make_curve(val, test),
        setup_seconds=0.5,
    )


def make_table(
    n: int = 40,
    *,
    seed: int = 0,
    noise: float = 0.01,
    change: Callable[[RecordedRun], RecordedRun] = lambda run: run,
    source: str = "birds.parquet",
    **changes: Any,
) -> RecordedTable:
    runs = [change(make_run(planned, noise, seed)) for planned in plan_runs(SPACE, n, epochs=LENGTH, seed=seed)]
    return RecordedTable(header(seed=seed, **changes), runs, source)


def halve_even(run: RecordedRun) -> RecordedRun:
    """Returns a run with half the epochs if the number of its setting is even, as in tables of several lengths."""
    if run.setting % 2:
        return run
    length = LENGTH // 2
    curve = make_curve(run.val_accuracy, run.test_accuracy, length)
    return dataclasses.replace(run, settings=run.settings.replace(epochs=length), curve=curve)


def diverge(run: RecordedRun) -> RecordedRun:
    """Returns the run with a loss that becomes infinite in its second epoch."""
    last = EpochResult(2, math.inf, None, None, 1.0, diverged=True)
    return dataclasses.replace(run, curve=(run.curve[0], last))
