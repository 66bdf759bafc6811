"""ReplayResult: how methods did on recorded tasks, as plain data and as rows for tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np

from nbt.tuning.benchmark.ground_truth import GroundTruth
from nbt.tuning.benchmark.metrics import (
    NEAR_BEST_TOLERANCE,
    IntervalEstimate,
    bootstrap_mean,
    bootstrap_mean_estimate,
    bootstrap_median,
    epochs_to_reach,
    epochs_to_stay,
    incumbent_path,
    paired_test,
    ranks,
    regret_curve,
)
from nbt.tuning.benchmark.simulated_engine import ReplayedTrial
from nbt.tuning.benchmark.tabular import FloatArray, TabularBenchmark

ACCURACY_ESTIMATES = ("test", "smoothed")


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodResult:
    """All searches of one method on one task.

    Attributes:
        trials: Of each seed's search.
        regret: Judge -> simple regret after each epoch, (seeds, epochs). "test" judges the incumbent by its test
            accuracy, "smoothed" by the smoothed estimate; both measure from the best smoothed estimate.
    """

    trials: Sequence[Sequence[ReplayedTrial]]
    regret: Mapping[str, FloatArray]

    def epochs_to_near_best(self, judge: str = "test") -> list[float]:
        """Returns each search's epochs to come within half a point of the best; infinite where it never did."""
        found = [epochs_to_reach(curve) for curve in self.regret[judge]]
        return [math.inf if epochs is None else float(epochs) for epochs in found]

    def epochs_to_stay(self) -> list[float]:
        """Returns each search's epochs to come within half a point of the best for good; infinite where it did not."""
        found = [epochs_to_stay(curve) for curve in self.regret["test"]]
        return [math.inf if epochs is None else float(epochs) for epochs in found]

    @property
    def distances(self) -> list[float]:
        """How far each proposal was from the recorded setting that stood for it, over all searches."""
        return [trial.distance for search in self.trials for trial in search if trial.distance is not None]


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskResult:
    """All methods on one task.

    Attributes:
        name: Of the task.
        settings: Number of recorded settings.
        length: Epochs of a full trial.
        horizon: Epochs of a search.
        truth: What the settings are worth.
        experience: Names of the tables that methods could know.
        methods: By name.
    """

    name: str
    settings: int
    length: int
    horizon: int
    truth: GroundTruth
    experience: Sequence[str]
    methods: Mapping[str, MethodResult]

    @classmethod
    def from_trials(
        cls,
        benchmark: TabularBenchmark,
        truth: GroundTruth,
        *,
        horizon: int,
        experience: Sequence[str],
        played: Mapping[str, Sequence[Sequence[ReplayedTrial]]],
    ) -> TaskResult:
        """Judges the searches of each method."""
        classes = int(benchmark.header.facts.get("classes") or 0)
        guessing = 1 / classes if classes else 0.0
        judged = {"test": truth.test, "smoothed": truth.smoothed}

        def judge(searches: Sequence[Sequence[ReplayedTrial]]) -> MethodResult:
            paths = [incumbent_path(trials, benchmark, horizon) for trials in searches]
            regret = {
                name: np.stack([regret_curve(path, values, truth.best, guessing) for path in paths])
                for name, values in judged.items()
            }
            return MethodResult(trials=searches, regret=regret)

        return cls(
            name=benchmark.header.name,
            settings=len(benchmark.settings),
            length=benchmark.length,
            horizon=horizon,
            truth=truth,
            experience=tuple(experience),
            methods={name: judge(searches) for name, searches in played.items()},
        )

    @property
    def range(self) -> float:
        """What a regret of 1 means after normalisation: from the median setting to the best one."""
        return max(self.truth.best - self.truth.median, 1e-9)

    def normalised(self, method: str, judge: str = "test") -> FloatArray:
        """Returns each search's mean regret from the first full trial to the horizon, in units of `range`."""
        curves = self.methods[method].regret[judge][:, self.length - 1 :]
        return np.asarray(curves.mean(axis=1) / self.range)

    def counted(self, method: str, judge: str = "test") -> list[float]:
        """Returns `epochs_to_near_best` with a search that never came near counted as the whole horizon."""
        return [min(epochs, float(self.horizon)) for epochs in self.methods[method].epochs_to_near_best(judge)]


@dataclass(frozen=True, eq=False)
class ReplayResult:
    """All methods on all tasks.

    Attributes:
        tasks: In the order of the tables.
        methods: Name -> description, in order; the first is the reference of ratios and tests.
        seeds: Searches of each method on each task.
    """

    tasks: Sequence[TaskResult]
    methods: Mapping[str, str]
    seeds: int

    @property
    def reference(self) -> str:
        """The method that ratios and tests compare with."""
        return next(iter(self.methods))

    def task_rows(self) -> list[dict[str, Any]]:
        """Returns what was recorded of each task, and how sure its accuracies are; accuracies are 0 ... 1."""
        return [
            {
                "task": task.name,
                "settings": task.settings,
                "epochs_of_trial": task.length,
                "horizon": task.horizon,
                "best": task.truth.best,
                "luckiest": float(task.truth.test.max()),
                "median": task.truth.median,
                "run_noise": task.truth.run_noise,
                "seed_pairs": task.truth.pairs,
                "image_noise": task.truth.image_noise,
                "within_half_a_point": int(np.sum(task.truth.test >= task.truth.best - NEAR_BEST_TOLERANCE - 1e-9)),
                "experience": ", ".join(task.experience),
            }
            for task in self.tasks
        ]

    def summary_rows(self) -> list[dict[str, Any]]:
        """Returns one row a task and method, see `_summary_row`."""
        return [_summary_row(task, name) for task in self.tasks for name in self.methods]

    def overall_rows(self) -> list[dict[str, Any]]:
        """Returns one row a method, over all tasks.

        Columns: `epochs`: the median over tasks of the median over seeds of the epochs to come near the best.
        `ratio`: the median over tasks of that against the reference's. `worst_ratio`: the greatest, over tasks,
        against the best other method. A median that is no number counts as the horizon. `normalised_regret`, `rank`:
        means over tasks and seeds, ranks by the mean regret; both with bootstrap intervals. `p_epochs`, `p_regret`:
        paired tests against the reference.
        """
        medians = {name: [_median_epochs(task, name) for task in self.tasks] for name in self.methods}
        regrets = {name: self._per_search(name, "normalised") for name in self.methods}
        epochs = {name: self._per_search(name, "counted") for name in self.methods}
        ranks_by_method = dict(zip(self.methods, ranks(np.asarray(list(regrets.values()))), strict=True))
        rows = []
        for name in self.methods:
            others = [medians[other] for other in self.methods if other != name]
            ratios = [a / b for a, b in zip(medians[name], medians[self.reference], strict=True)]
            rows.append(
                {
                    "method": name,
                    "epochs": median(medians[name]),
                    "ratio": median(ratios),
                    "worst_ratio": _worst_ratio(medians[name], others),
                    **_interval_columns("normalised_regret", bootstrap_mean_estimate(regrets[name])),
                    **_interval_columns("rank", bootstrap_mean_estimate(ranks_by_method[name])),
                    "p_epochs": paired_test(epochs[name], epochs[self.reference]),
                    "p_regret": paired_test(regrets[name], regrets[self.reference]),
                }
            )
        return rows

    def comparison_rows(self) -> list[dict[str, Any]]:
        """Returns a paired test of each pair of methods, over all tasks and seeds; p-values are not adjusted."""
        rows = []
        for name in self.methods:
            for other in self.methods:
                if name != other:
                    epochs = self._per_search(name, "counted"), self._per_search(other, "counted")
                    regrets = self._per_search(name, "normalised"), self._per_search(other, "normalised")
                    rows.append(
                        {
                            "method": name,
                            "against": other,
                            "epochs_difference": fmean(epochs[0]) - fmean(epochs[1]),
                            "p_epochs": paired_test(*epochs),
                            "regret_difference": fmean(regrets[0]) - fmean(regrets[1]),
                            "p_regret": paired_test(*regrets),
                        }
                    )
        return rows

    def search_rows(self) -> list[dict[str, Any]]:
        """Returns one row a search; epochs are missing where it never came near the best."""
        return [
            _search_row(task, name, seed) for task in self.tasks for name in self.methods for seed in range(self.seeds)
        ]

    def curve_rows(self) -> list[dict[str, Any]]:
        """Returns mean regrets with their 95 % intervals, at every half of a trial from the first full one on."""
        rows = []
        for task in self.tasks:
            for name in self.methods:
                mean, low, high = bootstrap_mean(task.methods[name].regret["test"])
                rows += [
                    {
                        "task": task.name,
                        "method": name,
                        "epoch": i + 1,
                        "regret": mean[i],
                        "low": low[i],
                        "high": high[i],
                    }
                    for i in range(task.length - 1, task.horizon, max(1, task.length // 2))
                ]
        return rows

    def to_json(self) -> dict[str, Any]:
        """Returns what was found in JSON types."""
        return {
            "methods": dict(self.methods),
            "seeds": self.seeds,
            "tasks": self.task_rows(),
            "summary": self.summary_rows(),
            "overall": self.overall_rows(),
        }

    def _per_search(self, method: str, what: str) -> list[float]:
        """Returns a number of every search of a method, over tasks and seeds in the same order for all methods."""
        return [float(value) for task in self.tasks for value in getattr(task, what)(method)]


def _worst_ratio(epochs: Sequence[float], others: Sequence[Sequence[float]]) -> float | None:
    """Returns the greatest ratio to the least of the others, over tasks; None where there are no others."""
    if not others:
        return None
    least = [min(values) for values in zip(*others, strict=True)]
    return max(float(mine / best) for mine, best in zip(epochs, least, strict=True))


def _median_epochs(task: TaskResult, method: str) -> float:
    return min(bootstrap_median(task.methods[method].epochs_to_near_best()).value, float(task.horizon))


def _summary_row(task: TaskResult, name: str) -> dict[str, Any]:
    """Returns a row.

    Columns: `epochs`: median over seeds of the epochs to come within half a point of the best, with its interval,
    infinite where more than half of the searches never did; `never`: how many did not; `epochs_mean`: the mean, these
    counted as the horizon; `epochs_stay`: the median until it stayed there; `epochs_smoothed`: the median where the
    smoothed estimate judges. `regret`: mean at the horizon, in accuracy. `trials`, `stopped`: means of a search.
    `distance`: the mean over proposals, see `nbt.tuning.benchmark.tabular.coordinates`.
    """
    method = task.methods[name]
    epochs = method.epochs_to_near_best()
    stopped = [sum(trial.stopped is not None for trial in search) for search in method.trials]
    distances = method.distances
    return {
        "task": task.name,
        "method": name,
        **_interval_columns("epochs", bootstrap_median(epochs)),
        "never": sum(math.isinf(value) for value in epochs),
        "epochs_mean": fmean(task.counted(name)),
        "epochs_stay": bootstrap_median(method.epochs_to_stay()).value,
        "epochs_smoothed": bootstrap_median(method.epochs_to_near_best("smoothed")).value,
        **_interval_columns("regret", bootstrap_mean_estimate(method.regret["test"][:, -1].tolist())),
        **_interval_columns("normalised_regret", bootstrap_mean_estimate(task.normalised(name).tolist())),
        "trials": fmean(len(search) for search in method.trials),
        "stopped": fmean(stopped),
        "distance": fmean(distances) if distances else None,
    }


def _search_row(task: TaskResult, name: str, seed: int) -> dict[str, Any]:
    method = task.methods[name]
    trials = method.trials[seed]
    distances = [trial.distance for trial in trials if trial.distance is not None]
    row: dict[str, Any] = {"task": task.name, "method": name, "seed": seed}
    row["epochs_stay"] = epochs_to_stay(method.regret["test"][seed])
    for judge in ACCURACY_ESTIMATES:
        epochs = epochs_to_reach(method.regret[judge][seed])
        row |= {f"epochs_{judge}": epochs, f"regret_{judge}": float(method.regret[judge][seed, -1])}
    return {
        **row,
        "normalised_regret": float(task.normalised(name)[seed]),
        "epochs_spent": trials[-1].cumulative_epochs if trials else 0,
        "trials": len(trials),
        "stopped": sum(trial.stopped is not None for trial in trials),
        "distance": fmean(distances) if distances else None,
    }


def _interval_columns(name: str, estimate: IntervalEstimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
