"""Synthetic tasks with a known best recipe, and recorded tables, targets and trials of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna

from nbt.seeds import derive_seed
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable, TableHeader
from nbt.tuning.experience.recording import plan_runs
from nbt.tuning.pruners import quantile_forest
from nbt.tuning.space.encoding import log_effective_lr
from nbt.tuning.space.sampling import sample_params
from nbt.tuning.space.space import Space
from nbt.tuning.storage import codec
from nbt.tuning.storage.records import FORECAST, TrialRecord
from nbt.tuning.surrogate.task_similarity import target_from_header
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import TransferredPriors
from tests.tuning.benchmark.tables import SPACE, header

LENGTH = 12
IMAGES = 300

LogitFunction = Callable[[TransferSettings], float]
Curve = tuple[EpochResult, ...]


def profile(
    pretrained: float = 0.6, random: float = 0.1, *, layers: int = 6, **scalars: float | None
) -> dict[str, Any]:
    """Returns the parts of a fit profile that models use; its gain rises up to the knee at two thirds."""
    depths = [(i + 1) / layers for i in range(layers)]
    gains = [min(1.0, 1.5 * depth) * (pretrained - random) for depth in depths]
    rows = [
        {"gain": gain, "mean_shift": 0.1 + depth, "ridge_accuracy": random + gain, "ridge_accuracy_random": random}
        for gain, depth in zip(gains, depths, strict=True)
    ]
    values = {"ridge_accuracy": pretrained, "ridge_accuracy_random": random, "knee_depth": 2 / 3, **scalars}
    return {"scalars": values, "layers": rows}


def facts(**changes: Any) -> dict[str, Any]:
    return {"classes": 10, "train_images": 600, "validation_images": IMAGES, "test_images": 800, **changes}


def target(pretrained: float = 0.6, random: float = 0.1, *, epochs: int = LENGTH, **changes: Any) -> Target:
    """Returns a target; `changes` replace facts."""
    return Target.of(facts(**changes), profile(pretrained, random), epochs, backbone="conv3")


@dataclass(frozen=True)
class Task:
    """A task in which a formula gives the accuracy of every recipe.

    Attributes:
        name: Name of its dataset.
        level: Log odds of the accuracy of the best recipe.
        rate: log10 of the best effective learning rate of the units.
        frozen: The best frozen depth.
        seed: Seed of noise and settings.
    """

    name: str
    level: float = 1.2
    rate: float = -1.0
    frozen: float = 0.3
    seed: int = 0

    def true_logit(self, settings: TransferSettings) -> float:
        """Returns the log odds of the final accuracy without noise."""
        body = log_effective_lr(settings, settings.body_lr) - self.rate
        head = log_effective_lr(settings, settings.head_lr) + 0.7
        return self.level - 0.4 * body**2 - 0.15 * head**2 - 1.2 * (settings.frozen_depth - self.frozen) ** 2

    def curve(self, settings: TransferSettings, *, seed: int = 0, length: int = LENGTH, epochs: int = 0) -> Curve:
        """Returns a noisy curve of the first `epochs` of `length`, all of them by default."""
        key = derive_seed(self.seed, str(sorted(settings.identity().items())), seed)
        rng = np.random.default_rng(key)
        # The lower the learning rate, the later the accuracy rises.
        speed = 2.5 + 1.2 * float(np.clip(log_effective_lr(settings, settings.head_lr) + 1, -1.5, 1.5))
        end = self.true_logit(settings) + 0.1 * rng.standard_normal()
        rows, difficulties, watched_difficulties = [], rng.random(IMAGES), rng.random(800)  # the images do not change
        for epoch in range(1, length + 1):
            missing = math.exp(-speed * epoch / length) - math.exp(-speed)
            share = 1 / (1 + math.exp(3 * missing - end))
            watched, accuracy = (float(np.mean(drawn < share)) for drawn in (watched_difficulties, difficulties))
            loss = -math.log(share) + 0.02 * abs(rng.standard_normal())
            rows.append(EpochResult(epoch, loss + 0.1, loss, accuracy, 1.0, watched_accuracy=watched))
        return tuple(rows[: epochs or length])


BIRDS = Task("birds", 1.5, -1.1, 0.3, seed=1)
CARS = Task("cars", 0.4, -0.8, 0.2, seed=2)
FISH = Task("fish", 2.2, -1.3, 0.4, seed=3)
TREES = Task("trees", 0.9, -1.0, 0.35, seed=4)
SOURCE_TASKS = (BIRDS, CARS, FISH)


def table(task: Task, n: int = 40, *, length: int = LENGTH, **changes: Any) -> RecordedTable:
    """Returns `n` recorded settings of a task."""
    options = {"dataset": task.name, "data_hash": task.name, "epochs": length, "seed": task.seed, "watched": 800}
    table_header: TableHeader = header(**{**options, "facts": facts(), "profile": profile(), **changes})
    runs = [
        RecordedRun(
            setting=run.setting,
            seed=run.seed,
            origin=run.origin,
            settings=run.settings,
            curve=task.curve(run.settings, seed=run.seed, length=length),
        )
        for run in plan_runs(SPACE, n, epochs=length, seed=task.seed)
    ]
    return RecordedTable(table_header, runs, f"{task.name}.parquet")


@cache
def source_tables() -> tuple[RecordedTable, ...]:
    """Returns the tables of three tasks other than TREES."""
    return tuple(table(task) for task in SOURCE_TASKS)


@cache
def target_table() -> RecordedTable:
    """Returns the table of TREES."""
    return table(TREES)


@cache
def transferred_priors() -> TransferredPriors:
    """Returns the priors learned from the three tables, with a small forest."""
    priors = TransferredPriors(source_tables())
    with patch_small_forests():
        assert priors.forecaster is not None
    return priors


def patch_small_forests() -> Any:
    """Returns a context in which forests are small."""
    return patch.object(quantile_forest, "_NUM_TREES", 30)


def trees_target() -> Target:
    """Returns TREES as the target of a search."""
    return target_from_header(target_table().header)


def draw(n: int, seed: int = 0, space: Space = SPACE, length: int = LENGTH) -> list[TransferSettings]:
    """Returns random settings of a space."""
    rng = np.random.default_rng(seed)
    return [space.settings(sample_params(space, rng), length) for _ in range(n)]


def record(
    number: int,
    settings: TransferSettings,
    curve: Curve = (),
    *,
    state: str = "complete",
    forecast: Mapping[str, Any] | None = None,
) -> TrialRecord:
    trial_facts = {} if forecast is None else {FORECAST: dict(forecast)}
    return TrialRecord(number=number, state=state, settings=settings, curve=curve, facts=trial_facts)


_STATES = {
    "complete": optuna.trial.TrialState.COMPLETE,
    "pruned": optuna.trial.TrialState.PRUNED,
    "failed": optuna.trial.TrialState.FAIL,
    "running": optuna.trial.TrialState.RUNNING,
}


def add(
    study: optuna.Study,
    settings: TransferSettings,
    curve: Sequence[EpochResult] = (),
    *,
    state: str = "complete",
    forecast: Mapping[str, Any] | None = None,
    space: Space = SPACE,
) -> int:
    """Adds a trial to a study as the controller stores it, and returns its number."""
    attributes = {
        codec.SETTINGS: settings.to_dict(),
        codec.PROGRESS: {"trained": len(curve), "curve": codec.encode_curve(curve)},
        codec.FACTS: {} if forecast is None else {FORECAST: dict(forecast)},
    }
    study.add_trial(
        optuna.trial.create_trial(
            state=_STATES[state],
            params=space.params(settings),
            distributions=space.distributions(),
            user_attrs=attributes,
            values=[max(epoch.val_accuracy or 0.0 for epoch in curve)] if state == "complete" else None,
        )
    )
    return len(study.get_trials(deepcopy=False)) - 1


def make_study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize")
