"""Synthetic tasks: recorded tables whose truth is a formula, targets to search on, and trials of them."""

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
from nbt.tuning.pruners import curve_forecast
from nbt.tuning.space.encoding import log_effective_lr
from nbt.tuning.space.sampling import sample_params
from nbt.tuning.space.space import Space
from nbt.tuning.storage import codec as codec
from nbt.tuning.storage.records import FORECAST, TrialRecord
from nbt.tuning.surrogate.task_model import target_from_header
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import TransferredPriors
from tests.tuning.benchmark.tables import SPACE, header

LENGTH = 12
IMAGES = 300

LogitFunction = Callable[[TransferSettings], float]
Curve = tuple[EpochResult, ...]


def profile(own: float = 0.6, random: float = 0.1, *, layers: int = 6, **scalars: float | None) -> dict[str, Any]:
    """Returns what models read of a fit profile: a gain that rises to its knee at two thirds, shifts that rise too."""
    depths = [(i + 1) / layers for i in range(layers)]
    rows = [{"gain": min(1.0, 1.5 * depth) * (own - random), "mean_shift": 0.1 + depth} for depth in depths]
    known = {"ridge_accuracy": own, "ridge_accuracy_random": random, "knee_depth": 2 / 3, **scalars}
    return {"scalars": known, "layers": rows}


def facts(**changes: Any) -> dict[str, Any]:
    return {"classes": 10, "train_images": 600, "validation_images": IMAGES, "test_images": 800, **changes}


def target(own: float = 0.6, random: float = 0.1, *, epochs: int = LENGTH, **changes: Any) -> Target:
    """Returns a target; `changes` are of its facts."""
    return Target.of(facts(**changes), profile(own, random), epochs)


@dataclass(frozen=True)
class Task:
    """A task whose recipes are true_logit what a formula says.

    Attributes:
        name: Of its dataset.
        level: Log odds of the accuracy of the best recipe.
        rate: log10 of the best effective rate of the units.
        frozen: The best frozen depth.
        seed: Of noise and settings.
    """

    name: str
    level: float = 1.2
    rate: float = -1.0
    frozen: float = 0.3
    seed: int = 0

    def true_logit(self, settings: TransferSettings) -> float:
        """Returns the log odds of the accuracy at the end, noise apart."""
        body = log_effective_lr(settings, settings.body_lr) - self.rate
        head = log_effective_lr(settings, settings.head_lr) + 0.7
        return self.level - 0.4 * body**2 - 0.15 * head**2 - 1.2 * (settings.frozen_depth - self.frozen) ** 2

    def curve(self, settings: TransferSettings, *, seed: int = 0, length: int = LENGTH, epochs: int = 0) -> Curve:
        """Returns a noisy curve of the first `epochs` of `length`, all of them by default."""
        key = derive_seed(self.seed, str(sorted(settings.to_dict().items())), seed)
        draws = np.random.default_rng(key)
        # Slow recipes come late: the lower the rate, the longer.
        speed = 2.5 + 1.2 * float(np.clip(log_effective_lr(settings, settings.head_lr) + 1, -1.5, 1.5))
        end = self.true_logit(settings) + 0.1 * draws.standard_normal()
        rows = []
        for epoch in range(1, length + 1):
            missing = math.exp(-speed * epoch / length) - math.exp(-speed)
            share = 1 / (1 + math.exp(3 * missing - end))
            watched = draws.binomial(800, share) / 800
            accuracy = draws.binomial(IMAGES, share) / IMAGES
            loss = -math.log(share) + 0.02 * abs(draws.standard_normal())
            rows.append(EpochResult(epoch, loss + 0.1, loss, accuracy, 1.0, watched_accuracy=watched))
        return tuple(rows[: epochs or length])


BIRDS = Task("birds", 1.5, -1.1, 0.3, seed=1)
CARS = Task("cars", 0.4, -0.8, 0.2, seed=2)
FISH = Task("fish", 2.2, -1.3, 0.4, seed=3)
TREES = Task("target_table", 0.9, -1.0, 0.35, seed=4)
SOURCE_TASKS = (BIRDS, CARS, FISH)


def table(task: Task, n: int = 40, *, length: int = LENGTH, **changes: Any) -> RecordedTable:
    """Returns `n` recorded settings of a task."""
    options = {"dataset": task.name, "data_hash": task.name, "epochs": length, "seed": task.seed, "watched": 800}
    made: TableHeader = header(**{**options, "facts": facts(), "profile": profile(), **changes})
    runs = [
        RecordedRun(
            setting=one.setting,
            seed=one.seed,
            origin=one.origin,
            settings=one.settings,
            curve=task.curve(one.settings, seed=one.seed, length=length),
        )
        for one in plan_runs(SPACE, n, epochs=length, seed=task.seed)
    ]
    return RecordedTable(made, runs, f"{task.name}.parquet")


@cache
def source_tables() -> tuple[RecordedTable, ...]:
    """The tables of three tasks, none of which is TREES."""
    return tuple(table(task) for task in SOURCE_TASKS)


@cache
def target_table() -> RecordedTable:
    """The table of the task that is target_facts."""
    return table(TREES)


@cache
def transferred_priors() -> TransferredPriors:
    """What the three tables teach, with a small forest."""
    made = TransferredPriors(source_tables())
    with patch_small_forests():
        assert made.forecaster is not None
    return made


def patch_small_forests() -> Any:
    """Makes forests small while it holds."""
    return patch.object(curve_forecast, "_NUM_TREES", 30)


def target_facts() -> Target:
    """Returns what is known of TREES beforehand."""
    return target_from_header(target_table().header)


def draw(n: int, seed: int = 0, space: Space = SPACE, length: int = LENGTH) -> list[TransferSettings]:
    """Returns random settings of a space."""
    draws = np.random.default_rng(seed)
    return [space.settings(sample_params(space, draws), length) for _ in range(n)]


def record(
    number: int,
    settings: TransferSettings,
    curve: Curve = (),
    *,
    state: str = "complete",
    forecast: Mapping[str, Any] | None = None,
) -> TrialRecord:
    made = {} if forecast is None else {FORECAST: dict(forecast)}
    return TrialRecord(number=number, state=state, settings=settings, curve=curve, facts=made)


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
    """Adds a trial as the controller leaves it, and returns its number."""
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
            values=[max(one.val_accuracy or 0.0 for one in curve)] if state == "complete" else None,
        )
    )
    return len(study.get_trials(deepcopy=False)) - 1


def make_study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize")
