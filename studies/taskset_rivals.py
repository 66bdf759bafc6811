"""Searches of other packages on generic tables of learning curves: PriorBand of NePS and multi-fidelity SMAC.

Both run with their own defaults through their ask-and-tell interfaces. A proposal is replaced by the nearest recorded
setting that the search has not used yet, as for every other method, and a promoted one goes on with its setting.

    pip install neural-pipeline-search==0.17.0 smac==2.4.1
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution

from nbt.tuning.benchmark.curves.search import CurveSearch
from nbt.tuning.benchmark.curves.table import CurveTask

FIDELITY = "epoch"
BUDGET = 20  # full runs, by which SMAC plans its rounds
# Loss of a run that diverges before any other loss is known: the limit of PyTorch's binary cross entropy.
FIRST_LOSS = 100.0


def priorband(search: CurveSearch, others: Sequence[CurveTask], seed: int) -> None:
    """Runs PriorBand with the setting that has the best mean rank on the other tables as its prior."""
    import neps
    from neps.optimizers.algorithms import priorband as make_optimizer
    from neps.optimizers.ask_and_tell import AskAndTell

    _seed_everything(seed)
    prior = _best_of(others)
    dimensions: dict[str, Any] = {FIDELITY: neps.IntegerFidelity(lower=1, upper=search.task.length)}
    for name, distribution in search.distributions().items():
        if isinstance(distribution, FloatDistribution):
            low, high = distribution.low, distribution.high
            belief = {"prior": min(max(prior[name], low), high), "prior_confidence": "medium"}
            dimensions[name] = neps.Float(lower=low, upper=high, log=distribution.log, **belief)
        elif isinstance(distribution, CategoricalDistribution):
            belief = {"prior": distribution.choices.index(prior[name]), "prior_confidence": "medium"}
            dimensions[name] = neps.Categorical(choices=distribution.choices, **belief)
    optimizer = AskAndTell(make_optimizer(type("Space", (neps.PipelineSpace,), dimensions)()))
    runs = _Runs(search)
    while True:
        trial = optimizer.ask()
        config = dict(trial.config)
        epochs = config.pop(FIDELITY)
        optimizer.tell(trial, runs.loss(config, epochs))


def smac(search: CurveSearch, others: Sequence[CurveTask], seed: int) -> None:
    """Runs the multi-fidelity facade of SMAC: random forests inside Hyperband."""
    from ConfigSpace import ConfigurationSpace
    from ConfigSpace.hyperparameters import CategoricalHyperparameter, UniformFloatHyperparameter
    from smac import MultiFidelityFacade, Scenario
    from smac.intensifier.hyperband_utils import get_n_trials_for_hyperband_multifidelity
    from smac.runhistory import TrialValue

    space, length = ConfigurationSpace(seed=seed), search.task.length
    for name, distribution in search.distributions().items():
        if isinstance(distribution, FloatDistribution):
            space.add(UniformFloatHyperparameter(name, distribution.low, distribution.high, log=distribution.log))
        elif isinstance(distribution, CategoricalDistribution):
            space.add(CategoricalHyperparameter(name, distribution.choices))
    n_trials = get_n_trials_for_hyperband_multifidelity(
        total_budget=BUDGET * length, min_budget=1, max_budget=length, print_summary=False
    )
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(
            space,
            deterministic=True,
            n_trials=n_trials,
            min_budget=1,
            max_budget=length,
            seed=seed,
            output_directory=folder,
        )
        facade = MultiFidelityFacade(scenario, _unused, overwrite=True, logging_level=False)
        runs = _Runs(search)
        while True:
            info = facade.ask()
            epochs = max(1, round(info.budget or length))
            facade.tell(info, TrialValue(cost=runs.loss(dict(info.config), epochs), time=0.0), save=False)


RIVALS = {
    "priorband": (
        "PriorBand of NePS: Hyperband; its prior is the setting with the best mean rank on the other tables.",
        priorband,
    ),
    "smac": ("Multi-fidelity SMAC: random forests and Hyperband.", smac),
}


def _unused(config: object, seed: int, budget: float) -> float:
    raise AssertionError("ask and tell do not call the target function")


class _Runs:
    """The recorded settings behind the proposals of a search."""

    def __init__(self, search: CurveSearch) -> None:
        self._search = search
        self._settings: dict[tuple[tuple[str, Any], ...], int] = {}
        self._worst: float | None = None

    def loss(self, params: Mapping[str, Any], epochs: int) -> float:
        """Trains the setting of a proposal up to an epoch and returns the negated score, finite also if it diverges.

        A diverged setting has the worst loss so far, or `FIRST_LOSS`, and is not trained any more.

        Raises:
            BudgetSpentError: The budget is spent.
        """
        key = tuple(sorted(params.items()))
        if key not in self._settings:
            self._settings[key], distance = self._search.nearest_to(dict(params))
            self._search.mark_used(self._settings[key], distance)
        setting = self._settings[key]
        score = self._search.score(setting) if setting in self._search.trained else 0.0
        while np.isfinite(score) and self._search.trained.get(setting, 0) < epochs:
            score = self._search.train(setting)
        if not np.isfinite(score):
            return FIRST_LOSS if self._worst is None else self._worst
        self._worst = -score if self._worst is None else max(self._worst, -score)
        return -score


def _best_of(tasks: Sequence[CurveTask]) -> dict[str, Any]:
    """Returns the setting with the best mean rank on tables of the same settings."""
    first = tasks[0]
    for task in tasks[1:]:
        for name, values in first.columns.items():
            if not np.array_equal(values, task.columns[name]):
                raise ValueError(f"{first.name} and {task.name} have different settings")
    ranks = [np.argsort(np.argsort(-task.judged[:, -1], kind="stable"), kind="stable") for task in tasks]
    return first.params(int(np.argmin(np.mean(ranks, axis=0))))


def _seed_everything(seed: int) -> None:
    """Seeds the global generators, from which NePS draws."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
