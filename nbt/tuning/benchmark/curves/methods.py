"""Search methods on generic tables of learning curves, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import optuna
from optuna.trial import TrialState

from nbt.errors import UsageError, nearest
from nbt.tuning.benchmark.curves.guided import guided
from nbt.tuning.benchmark.curves.search import BudgetSpentError, CurveSearch
from nbt.tuning.benchmark.curves.table import CurveTask
from nbt.tuning.benchmark.nearest_sampler import NearestRecordedSampler
from nbt.tuning.controller import tpe

CurveMethod = Callable[[CurveSearch, Sequence[CurveTask], int], None]
"""A method, which trains settings until `BudgetSpentError`; the arguments are search, other tables and seed."""

_MEDIAN_STARTUP_TRIALS = 5


def _random(search: CurveSearch, others: Sequence[CurveTask], seed: int) -> None:
    rng = np.random.default_rng(seed)
    while True:
        _train_until(search, int(rng.choice(search.unused)), search.task.length)


def _i_epoch(epochs: int) -> CurveMethod:
    """Returns random search that trains each setting for so many epochs, and the best of them to its end.

    As in Egele et al. 2024 (arXiv 2404.04111), but without a budget that is known in advance: half of the epochs go to
    new settings, and the other half train the best of all unfinished settings to its end. Once every setting has been
    used, all epochs do.
    """

    def run(search: CurveSearch, others: Sequence[CurveTask], seed: int) -> None:
        rng, length = np.random.default_rng(seed), search.task.length
        while True:
            unused = len(search.task) - len(search.trained)
            for _ in range(min(unused, max(1, (length - epochs) // epochs))):
                _train_until(search, int(rng.choice(search.unused)), min(epochs, length))
            partial = [
                setting
                for setting, trained in search.trained.items()
                if trained < length and np.isfinite(search.score(setting))
            ]
            if partial:
                _train_until(search, max(partial, key=search.score), length)
            elif not unused:
                raise BudgetSpentError

    return run


def _train_until(search: CurveSearch, setting: int, epoch: int) -> None:
    """Trains a setting up to an epoch or until it diverges."""
    while search.trained.get(setting, 0) < epoch:
        if not np.isfinite(search.train(setting)):
            return


def _optuna(
    pruner: Callable[[int], optuna.pruners.BasePruner], sampler: Callable[[int], optuna.samplers.BaseSampler] = tpe
) -> CurveMethod:
    """Returns a method that proposes with an Optuna sampler, TPE by default, and stops trials with an Optuna pruner.

    Args:
        pruner: Function from the epochs of a full run to the pruner.
        sampler: Function from the seed to the sampler.
    """

    def run(search: CurveSearch, others: Sequence[CurveTask], seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            study_name=f"replay-{seed}",  # Hyperband assigns brackets by the name
            direction="maximize",
            sampler=NearestRecordedSampler(sampler(seed), search),
            pruner=pruner(search.task.length),
        )
        worst = np.inf
        while True:
            trial = study.ask(search.distributions())
            setting, score = search.last_proposal, -np.inf
            for epoch in range(1, search.task.length + 1):
                score = search.train(setting)
                if not np.isfinite(score):
                    break
                worst = min(worst, score)
                trial.report(score, epoch)
                if epoch < search.task.length and trial.should_prune():
                    break
            if search.is_complete(setting):
                study.tell(trial, score)
            elif not np.isfinite(score) and np.isfinite(worst):  # TPE needs a number for a diverged trial
                study.tell(trial, worst)
            else:  # stopped, or diverged before any score: TPE ranks pruned trials without scores last
                study.tell(trial, state=TrialState.PRUNED)

    return run


_METHODS: Mapping[str, tuple[str, CurveMethod]] = {
    "random": ("Random settings; no stopping.", _random),
    "tpe": ("TPE; no stopping.", _optuna(lambda length: optuna.pruners.NopPruner())),
    "tpe+median": (
        "TPE; a trial below the median of earlier trials is stopped.",
        _optuna(lambda length: optuna.pruners.MedianPruner(n_startup_trials=_MEDIAN_STARTUP_TRIALS)),
    ),
    "tpe+asha": (
        "TPE; asynchronous successive halving with a minimum resource of one epoch and eta 3.",
        _optuna(lambda length: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)),
    ),
    "tpe+hyperband": (
        "TPE; Hyperband with a minimum resource of one epoch and eta 3.",
        _optuna(lambda length: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=length, reduction_factor=3)),
    ),
    **{
        f"{n}-epoch": (
            f"Random settings for {length} each; half of the epochs train the best to their end.",
            _i_epoch(n),
        )
        for n, length in ((1, "1 epoch"), (2, "2 epochs"), (4, "4 epochs"))
    },
    "guided": (
        "Bayesian optimisation with the other tables in the mean; curve forecasts learned from them stop trials.",
        guided,
    ),
    "without tables": (
        "Guided without the other tables; successive halving as in nbt search stops trials.",
        lambda search, others, seed: guided(search, (), seed),
    ),
}


def curve_methods(names: Sequence[str] = ()) -> dict[str, tuple[str, CurveMethod]]:
    """Returns description and function of methods, by name; of all when no names are given.

    Raises:
        UsageError: There is no such method; the message names the nearest ones.
    """
    for name in names:
        if name not in _METHODS:
            raise UsageError(f"unknown method {name!r}; {nearest(name, list(_METHODS))}")
    return {name: _METHODS[name] for name in names or _METHODS}
