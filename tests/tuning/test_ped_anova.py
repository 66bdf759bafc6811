from __future__ import annotations

import warnings

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from nbt.tuning.importance import Importance


def random_trial(rng: np.random.Generator, number: int) -> optuna.trial.FrozenTrial:
    """Returns a trial with parameters of every kind, one of which has two ranges, and another is missing in half."""
    ranges = {
        "float": FloatDistribution(0, 1),
        "rate": FloatDistribution(1e-4, 1, log=True),
        "count": IntDistribution(3, 12 if number % 3 else 20),
        "epochs": IntDistribution(4, 24, log=True),
        "choice": CategoricalDistribution(("x", "y", "z")),
        "fixed": CategoricalDistribution(("x",)),
        **({"sometimes": FloatDistribution(-1, 1)} if number % 2 else {}),
    }
    params = {
        "float": rng.random(),
        "rate": 10 ** rng.uniform(-4, 0),
        "count": int(rng.integers(3, 13)),
        "epochs": int(rng.integers(4, 25)),
        "choice": str(rng.choice(["x", "y", "z"])),
        "fixed": "x",
        "sometimes": rng.uniform(-1, 1),
    }
    value = params["float"] + 0.3 * np.log10(params["rate"]) + 0.2 * (params["choice"] == "x")
    chosen = {name: params[name] for name in ranges}
    # Rounding makes ties, of which all are among the best.
    return optuna.create_trial(params=chosen, distributions=ranges, value=float(round(value, 1)))


@pytest.mark.parametrize("count", [8, 9, 13, 40, 300])
def test_the_importance_is_that_of_optuna(count: int) -> None:
    rng = np.random.default_rng(count)
    study = optuna.create_study(direction="maximize")
    study.add_trials([random_trial(rng, number) for number in range(count)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a range with a single trial
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
        expected = optuna.importance.get_param_importances(study, evaluator=evaluator)
    shares = Importance(study.get_trials()).shares()
    assert shares == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert shares["fixed"] == 0.0


def test_the_intervals_are_quantiles_over_the_importances_of_optuna() -> None:
    rng = np.random.default_rng(0)
    trials = [random_trial(rng, number) for number in range(12)]
    samples, evaluator = [], optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    for row in np.random.default_rng(0).integers(len(trials), size=(100, len(trials))).tolist():
        study = optuna.create_study(direction="maximize")
        study.add_trials([trials[index] for index in row])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            samples.append(optuna.importance.get_param_importances(study, evaluator=evaluator))
    bounds = Importance(trials).bounds()
    for name in ("float", "rate", "choice"):
        expected = np.quantile([sample[name] for sample in samples], (0.025, 0.975))
        assert bounds[name] == pytest.approx(tuple(expected), abs=1e-9)
