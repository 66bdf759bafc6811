from __future__ import annotations

import json

import numpy as np
import pytest

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.storage.records import TrialRecord
from nbt.tuning.surrogate.logit_score import accuracy_from_logit_score
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from nbt.tuning.surrogate_skill import cross_validate
from tests.tuning.synthetic import IMAGES, SPACE, draw, record, trees_target


@pytest.fixture(scope="module")
def surrogate() -> PriorSurrogate:
    return PriorSurrogate(trees_target(), SPACE, heuristics=False)


def trials(settings: list[TransferSettings], logit_scores: np.ndarray, state: str = "complete") -> list[TrialRecord]:
    accuracies = accuracy_from_logit_score(logit_scores, IMAGES)
    return [
        record(i, recipe, (EpochResult(1, 1.0, 1.0, float(accuracy), 1.0),), state=state)
        for i, (recipe, accuracy) in enumerate(zip(settings, accuracies, strict=True))
    ]


def test_a_smooth_function_of_one_setting_is_predicted(surrogate: PriorSurrogate) -> None:
    settings = draw(40)
    scores = np.array([3.0 * recipe.transfer_depth for recipe in settings])
    skill = cross_validate(surrogate, trials(settings, scores))
    assert skill is not None
    assert skill["trials"] == 40
    assert skill["correlation"] > 0.6
    assert 0.0 < skill["low"] < skill["correlation"] < skill["high"] < 1.0
    assert json.loads(json.dumps(skill)) == skill


def test_noise_is_not_predicted(surrogate: PriorSurrogate) -> None:
    skill = cross_validate(surrogate, trials(draw(40), np.random.default_rng(1).normal(size=40)))
    assert skill is not None
    assert skill["low"] < 0.0


def test_the_interval_covers_the_correlation_of_unrelated_ranks() -> None:
    from nbt.tuning.surrogate_skill import _rank_correlation

    rng = np.random.default_rng(0)
    results = [_rank_correlation(rng.normal(size=20), rng.normal(size=20)) for _ in range(400)]
    covered = np.mean([result["low"] <= 0.0 <= result["high"] for result in results])
    assert covered == pytest.approx(0.95, abs=0.03)


def test_stopped_trials_inform_the_surrogate_but_are_not_predicted(surrogate: PriorSurrogate) -> None:
    settings = draw(30)
    scores = np.array([3.0 * recipe.transfer_depth for recipe in settings])
    mixed = [*trials(settings[:10], scores[:10]), *trials(settings[10:], scores[10:], state="pruned")]
    skill = cross_validate(surrogate, mixed)
    assert skill is not None
    assert skill["trials"] == 10


def test_too_few_or_equal_results_give_no_correlation(surrogate: PriorSurrogate) -> None:
    settings = draw(6)
    assert cross_validate(surrogate, []) is None
    assert cross_validate(surrogate, trials(settings[:4], np.arange(4.0))) is None
    equal = cross_validate(surrogate, trials(settings, np.zeros(6)))
    assert equal == {"correlation": None, "low": None, "high": None, "trials": 6}
