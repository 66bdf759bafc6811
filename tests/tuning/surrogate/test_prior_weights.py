"""How trials update the weight of each prior."""

from __future__ import annotations

import dataclasses
from unittest.mock import patch

import numpy as np
import pytest
import yaml

from nbt.settings import TransferSettings
from nbt.tuning.space.space import Space
from nbt.tuning.storage.codec import TLI_SIMILARITIES
from nbt.tuning.surrogate.logit_score import logit_score_variance
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from tests.conftest import REPOSITORY
from tests.tuning.benchmark.tables import FULL_SPACE
from tests.tuning.priors.suggestions import FULLY_MEASURED, NAMES, TEACHERS, get_prior
from tests.tuning.synthetic import IMAGES
from tests.tuning.synthetic import draw as draw_settings


def space_with_epochs() -> Space:
    """Returns the default space with a varied length."""
    content = yaml.safe_load((REPOSITORY / "search_spaces" / "non_binary.yaml").read_text())
    content["dimensions"]["epochs"] = {"kind": "int", "low": 3, "high": 48, "log": True, "neutral": 12}
    return Space.parse(yaml.safe_dump(content, sort_keys=False), source="epochs")


SPACES = (FULL_SPACE, Space.load("zapping"), space_with_epochs(), FULL_SPACE.with_teachers(TEACHERS[TLI_SIMILARITIES]))


def space_of(name: str) -> Space:
    """Returns the first space that varies a dimension of a prior."""
    needed = set(get_prior(name).dimensions)
    return next(space for space in SPACES if needed & {dimension.name for dimension in space.dimensions})


def draw(n: int, seed: int, name: str) -> list[TransferSettings]:
    return draw_settings(n, seed, space_of(name))


def surrogate_with_prior(name: str, sign: float = 1.0) -> PriorSurrogate:
    """Returns a surrogate with a single prior, whose strength is multiplied by `sign`."""
    single = get_prior(name)
    scaled = dataclasses.replace(single, strength=sign * single.strength)
    with patch("nbt.tuning.priors.activation.registered_priors", return_value=(scaled,)):
        return PriorSurrogate(FULLY_MEASURED, space_of(name))


def weight(surrogate: PriorSurrogate, name: str, trials: int, slope: float) -> dict[str, float]:
    """Returns the weight of the only source after trials whose logit scores are `slope` times its scores."""
    settings = draw(trials, 5, name)
    noise = 0.2 * np.random.default_rng(0).standard_normal(trials)
    scores_of_source = surrogate.source_scores(settings)[0]
    model = surrogate.condition(settings, 2.0 + slope * scores_of_source + noise, np.full(trials, 0.04))
    return model.weights()[0]


@pytest.mark.parametrize("name", NAMES)
class TestUpdating:
    def test_trials_that_contradict_it_reduce_its_weight(self, name: str) -> None:
        surrogate = surrogate_with_prior(name)
        before = surrogate.sources[0].mean
        after = [weight(surrogate, name, n, slope=-1.0)["after"] for n in (5, 40, 160)]
        assert before > after[0] > after[1] > after[2] - 0.01
        assert after[2] < 0.5 * before

    def test_trials_that_confirm_it_raise_its_weight(self, name: str) -> None:
        surrogate = surrogate_with_prior(name)
        assert weight(surrogate, name, 80, slope=1.0)["after"] > surrogate.sources[0].mean

    def test_unrelated_trials_reduce_its_weight(self, name: str) -> None:
        surrogate = surrogate_with_prior(name)
        assert weight(surrogate, name, 160, slope=0.0)["after"] < surrogate.sources[0].mean

    def test_the_uncertainty_of_its_weight_decreases(self, name: str) -> None:
        surrogate = surrogate_with_prior(name)
        spreads = [
            surrogate.sources[0].spread,
            *(weight(surrogate, name, n, slope=-1.0)["after_spread"] for n in (5, 40, 160)),
        ]
        assert spreads == sorted(spreads, reverse=True) and spreads[-1] < spreads[0]

    def test_predictions_no_longer_follow_a_contradicted_prior(self, name: str) -> None:
        surrogate = surrogate_with_prior(name)
        candidates = draw(300, 9, name)
        scores_of_source = surrogate.source_scores(candidates)[0]
        mean_score_before = scores_of_source[np.argsort(-surrogate.prior_mean(candidates))[:30]].mean()
        settings = draw(120, 5, name)
        logit_scores = 2.0 - surrogate.source_scores(settings)[0]
        model = surrogate.condition(settings, logit_scores, np.full(120, float(logit_score_variance(0.7, IMAGES))))
        mean_score_after = scores_of_source[np.argsort(-model.predict(candidates)[0])[:30]].mean()
        assert mean_score_before > 0.3 > 0.0 > mean_score_after

    @patch(
        "nbt.tuning.surrogate.prior_surrogate._MIN_TRIALS_TO_FIT_KERNEL", 1000
    )  # a common kernel, so that only the trials differ
    def test_the_influence_of_the_prior_decreases_with_trials(self, name: str) -> None:
        """Compares two surrogates with opposite priors."""
        candidates, differences = draw(100, 9, name), []
        for n in (2, 20, 160):
            settings = draw(n, 5, name)
            logit_scores = np.sin(np.arange(n))
            means = [
                surrogate_with_prior(name, sign)
                .condition(settings, logit_scores, np.full(n, 0.04))
                .predict(candidates)[0]
                for sign in (1.0, -1.0)
            ]
            differences.append(np.abs((means[0] - means[0].mean()) - (means[1] - means[1].mean())).mean())
        assert differences[0] > differences[1] > differences[2]
