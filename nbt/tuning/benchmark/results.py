"""Results of a replay of search methods on recorded tasks, and their tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import fmean, median
from typing import Any

import numpy as np

from nbt.tuning.benchmark.ground_truth import GroundTruth
from nbt.tuning.benchmark.metrics import (
    NEAR_BEST_TOLERANCE,
    bootstrap_mean,
    bootstrap_mean_estimate,
    bootstrap_median,
    epochs_to_reach,
    epochs_to_stay,
    incumbent_path,
    paired_test,
    ranks,
    regret_curve,
    regret_unit,
)
from nbt.tuning.benchmark.simulated_engine import ReplayedTrial
from nbt.tuning.benchmark.tabular import FloatArray, TabularBenchmark

ACCURACY_ESTIMATES = ("test", "smoothed")


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodResult:
    """All searches of one method on one task.

    Attributes:
        trials: Trials of each search, one sequence per seed.
        regret: Mapping from accuracy estimate to the simple regret after each epoch, (seeds, epochs). "test" uses the
            incumbent's test accuracy, "smoothed" its denoised test accuracy; both are measured from the best denoised
            accuracy.
    """

    trials: Sequence[Sequence[ReplayedTrial]]
    regret: Mapping[str, FloatArray]

    def epochs_to_near_best(self, accuracy_estimate: str = "test") -> list[float]:
        """Returns each search's epochs until it is within half a point of the best; infinite if it never is."""
        epochs_by_search = [epochs_to_reach(curve) for curve in self.regret[accuracy_estimate]]
        return [math.inf if epochs is None else float(epochs) for epochs in epochs_by_search]

    def epochs_to_stay(self) -> list[float]:
        """Returns each search's epochs until it stays within half a point of the best; infinite if it does not."""
        epochs_by_search = [epochs_to_stay(curve) for curve in self.regret["test"]]
        return [math.inf if epochs is None else float(epochs) for epochs in epochs_by_search]

    @property
    def distances(self) -> list[float]:
        """Distance of each proposal from the recorded setting that replaced it, over all searches."""
        return [trial.distance for search in self.trials for trial in search if trial.distance is not None]


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskResult:
    """Results of all methods on one task.

    Attributes:
        name: Name of the task.
        settings: Number of recorded settings.
        length: Epochs of a full trial.
        horizon: Epochs of a search.
        truth: Reference accuracies of the settings.
        experience: Names of the tables that the methods could use.
        methods: Result of each method, by name.
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
        name: str,
        horizon: int,
        experience: Sequence[str],
        trials_by_method: Mapping[str, Sequence[Sequence[ReplayedTrial]]],
    ) -> TaskResult:
        """Computes the regret of the searches of each method.

        Args:
            benchmark: Benchmark of the task.
            truth: Reference accuracies of its settings.
            name: Name of the task, unique in the replay.
            horizon: Epochs of a search.
            experience: Names of the tables that the methods could use.
            trials_by_method: Trials of each search, one sequence per seed, by the name of the method.
        """
        classes = int(benchmark.header.facts.get("classes") or 0)
        chance_accuracy = 1 / classes if classes else 0.0
        accuracies = {"test": truth.test, "smoothed": truth.smoothed}

        def method_result(searches: Sequence[Sequence[ReplayedTrial]]) -> MethodResult:
            paths = [incumbent_path(trials, benchmark, horizon) for trials in searches]
            regret = {
                name: np.stack([regret_curve(path, values, truth.best, chance_accuracy) for path in paths])
                for name, values in accuracies.items()
            }
            return MethodResult(trials=searches, regret=regret)

        return cls(
            name=name,
            settings=len(benchmark.settings),
            length=benchmark.length,
            horizon=horizon,
            truth=truth,
            experience=tuple(experience),
            methods={name: method_result(searches) for name, searches in trials_by_method.items()},
        )

    @property
    def range(self) -> float:
        """Unit of the normalised regret: difference between the best and the median accuracy.

        Where they are equal, see `nbt.tuning.benchmark.metrics.regret_unit`.
        """
        return regret_unit(self.truth.smoothed)

    def normalised_regret(self, method: str, accuracy_estimate: str = "test") -> FloatArray:
        """Returns each search's mean regret from the first full trial to the horizon, in units of `range`, (seeds,)."""
        curves = self.methods[method].regret[accuracy_estimate][:, self.length - 1 :]
        return np.asarray(curves.mean(axis=1) / self.range)

    def capped_epochs(self, method: str, accuracy_estimate: str = "test") -> list[float]:
        """Returns `epochs_to_near_best` of each search, at most the horizon."""
        epochs_by_search = self.methods[method].epochs_to_near_best(accuracy_estimate)
        return [min(epochs, float(self.horizon)) for epochs in epochs_by_search]


@dataclass(frozen=True, eq=False)
class ReplayResult:
    """Results of all methods on all tasks.

    Attributes:
        tasks: Results of each task, in the order of the tables.
        methods: Description of each method, by name; the first method is the reference of ratios and tests.
        seeds: Number of searches of each method on each task.
    """

    tasks: Sequence[TaskResult]
    methods: Mapping[str, str]
    seeds: int

    @property
    def reference(self) -> str:
        """Name of the method that ratios and tests compare with."""
        return next(iter(self.methods))

    def task_rows(self) -> list[dict[str, Any]]:
        """Returns one row per task: the recorded settings, the reference accuracies, 0 ... 1, and their noise."""
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
        """Returns one row per task and method.

        Columns: `epochs`, the median over seeds of the epochs until a search is within half a point of the best, with
        its interval (infinite if more than half of the searches never are); `never`, the number of searches that never
        are; `epochs_mean`, the mean, at most the horizon for each search; `epochs_stay`, the median of the epochs until
        a search stays there; `epochs_smoothed`, the median by denoised accuracies. `regret` and `normalised_regret`,
        means with intervals, the former at the horizon and as a difference of accuracies. `trials` and `stopped`, means
        per search. `distance`, the mean over proposals; see `nbt.tuning.benchmark.tabular.space_coordinates`.
        """
        return [_summary_row(task, name) for task in self.tasks for name in self.methods]

    def overall_rows(self) -> list[dict[str, Any]]:
        """Returns one row per method, over all tasks.

        Columns: `epochs`, the median over tasks of the median over seeds of the epochs until a search is near the best,
        where an infinite median counts as the horizon; `ratio`, the median over tasks of its ratio to the reference's;
        `worst_ratio`, the greatest ratio over tasks to the best other method. `normalised_regret` and `rank`, means
        over tasks and seeds with bootstrap intervals; ranks are by normalised regret. `p_epochs` and `p_regret`, paired
        tests against the reference.
        """
        medians = {name: [_median_epochs(task, name) for task in self.tasks] for name in self.methods}
        regrets = {name: self._per_search(name, "normalised_regret") for name in self.methods}
        epochs = {name: self._per_search(name, "capped_epochs") for name in self.methods}
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
                    **bootstrap_mean_estimate(regrets[name]).columns("normalised_regret"),
                    **bootstrap_mean_estimate(ranks_by_method[name]).columns("rank"),
                    "p_epochs": paired_test(epochs[name], epochs[self.reference]),
                    "p_regret": paired_test(regrets[name], regrets[self.reference]),
                }
            )
        return rows

    def comparison_rows(self) -> list[dict[str, Any]]:
        """Returns one row per ordered pair of methods, with paired tests over all tasks and seeds.

        The p-values are not corrected for multiple comparisons.
        """
        rows = []
        for pair in permutations(self.methods, 2):
            epochs, regrets = (
                [self._per_search(name, metric) for name in pair] for metric in ("capped_epochs", "normalised_regret")
            )
            rows.append(
                {
                    "method": pair[0],
                    "against": pair[1],
                    "epochs_difference": fmean(epochs[0]) - fmean(epochs[1]),
                    "p_epochs": paired_test(*epochs),
                    "regret_difference": fmean(regrets[0]) - fmean(regrets[1]),
                    "p_regret": paired_test(*regrets),
                }
            )
        return rows

    def search_rows(self) -> list[dict[str, Any]]:
        """Returns one row per search; epochs are None if the search is never near the best."""
        return [
            _search_row(task, name, seed) for task in self.tasks for name in self.methods for seed in range(self.seeds)
        ]

    def curve_rows(self) -> list[dict[str, Any]]:
        """Returns mean regrets with 95 % intervals after the first full trial and then after every half trial."""
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
        """Returns the methods and the tables of tasks, summary and overall results in JSON types."""
        return {
            "methods": dict(self.methods),
            "seeds": self.seeds,
            "tasks": self.task_rows(),
            "summary": self.summary_rows(),
            "overall": self.overall_rows(),
        }

    def _per_search(self, method: str, metric: str) -> list[float]:
        """Returns a metric of all searches of a method, by task and seed in the same order for all methods.

        Args:
            method: Name of the method.
            metric: Name of a method of `TaskResult`.
        """
        return [float(value) for task in self.tasks for value in getattr(task, metric)(method)]


def _worst_ratio(epochs: Sequence[float], others: Sequence[Sequence[float]]) -> float | None:
    """Returns the greatest ratio over tasks to the best of the other methods; None without other methods."""
    if not others:
        return None
    best_epochs = [min(values) for values in zip(*others, strict=True)]
    return max(float(value / best) for value, best in zip(epochs, best_epochs, strict=True))


def _median_epochs(task: TaskResult, method: str) -> float:
    """Returns the median number of epochs until a search is near the best, at most the horizon."""
    return min(bootstrap_median(task.methods[method].epochs_to_near_best()).value, float(task.horizon))


def _summary_row(task: TaskResult, name: str) -> dict[str, Any]:
    """Returns one row of `ReplayResult.summary_rows`."""
    method = task.methods[name]
    epochs = method.epochs_to_near_best()
    stopped = [sum(trial.stopped is not None for trial in search) for search in method.trials]
    distances = method.distances
    return {
        "task": task.name,
        "method": name,
        **bootstrap_median(epochs).columns("epochs"),
        "never": sum(math.isinf(value) for value in epochs),
        "epochs_mean": fmean(task.capped_epochs(name)),
        "epochs_stay": bootstrap_median(method.epochs_to_stay()).value,
        "epochs_smoothed": bootstrap_median(method.epochs_to_near_best("smoothed")).value,
        **bootstrap_mean_estimate(method.regret["test"][:, -1].tolist()).columns("regret"),
        **bootstrap_mean_estimate(task.normalised_regret(name).tolist()).columns("normalised_regret"),
        "trials": fmean(len(search) for search in method.trials),
        "stopped": fmean(stopped),
        "distance": fmean(distances) if distances else None,
    }


def _search_row(task: TaskResult, name: str, seed: int) -> dict[str, Any]:
    """Returns one row of `ReplayResult.search_rows`."""
    method = task.methods[name]
    trials = method.trials[seed]
    distances = [trial.distance for trial in trials if trial.distance is not None]
    row: dict[str, Any] = {"task": task.name, "method": name, "seed": seed}
    row["epochs_stay"] = epochs_to_stay(method.regret["test"][seed])
    for estimate in ACCURACY_ESTIMATES:
        epochs = epochs_to_reach(method.regret[estimate][seed])
        row |= {f"epochs_{estimate}": epochs, f"regret_{estimate}": float(method.regret[estimate][seed, -1])}
    return {
        **row,
        "normalised_regret": float(task.normalised_regret(name)[seed]),
        "epochs_spent": trials[-1].cumulative_epochs if trials else 0,
        "trials": len(trials),
        "stopped": sum(trial.stopped is not None for trial in trials),
        "distance": fmean(distances) if distances else None,
    }
