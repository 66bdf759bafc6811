"""How many units to transfer and to freeze."""

from __future__ import annotations

import pytest

from nbt.tuning.target import Target
from tests.tuning.priors.suggestions import BASE, DEPTHS, NO_REASON, best, grid, inactivity_reason, suggestion
from tests.tuning.synthetic import LENGTH, facts, profile, target


class TestTransferUpToTheKnee:
    NAME = "transfer up to the knee"

    @pytest.mark.parametrize("knee", [0.3, 0.7])
    def test_no_less_than_the_knee(self, knee: float) -> None:
        on = Target.of(facts(), profile(knee_depth=knee), LENGTH)
        log_density = suggestion(self.NAME, on).log_density
        values = [log_density(BASE.replace(transfer_depth=depth)) for depth in DEPTHS]
        assert values == sorted(values), "transferring all units has no cost"
        assert log_density(BASE.replace(transfer_depth=knee)) == max(values) > values[0]
        assert suggestion(self.NAME, on).words.startswith(f"transfer_depth is at least {knee:g}: up to there")

    def test_not_much_more_where_the_gain_falls_again(self) -> None:
        fit_profile = profile(knee_depth=0.5)
        fit_profile["layers"][-1]["gain"] = 0.1
        on = Target.of(facts(), fit_profile, LENGTH)
        assert best(self.NAME, on, grid("transfer_depth", *DEPTHS)) == pytest.approx(0.5)
        words = suggestion(self.NAME, on).words
        assert words.startswith("transfer_depth is at least 0.5 and transfer_depth is at most 0.7: ")
        assert "falls again above it" in words
        log_density = suggestion(self.NAME, on).log_density
        assert log_density(BASE.replace(transfer_depth=0.7)) == 0.0
        assert log_density(BASE.replace(transfer_depth=0.9)) == pytest.approx(-0.5)

    def test_without_a_gain_it_is_not_active(self) -> None:
        for fit_profile in (profile(0.11, 0.1), profile(knee_depth=0.0)):
            assert inactivity_reason(self.NAME, Target.of(facts(), fit_profile, LENGTH)) == NO_REASON


class TestFreezeWhenImagesAreFew:
    NAME = "freeze when images are few"

    def test_the_fewer_images_the_more_is_frozen(self) -> None:
        centres = [
            best(self.NAME, target(train_images=10 * shots), grid("frozen_depth", *DEPTHS))
            for shots in (5, 20, 100, 500, 5000)
        ]
        assert centres == sorted(centres, reverse=True)
        assert centres[0] > 0.8 and centres[-1] < 0.2

    def test_good_features_need_less_training(self) -> None:
        poor, good = (
            best(self.NAME, target(pretrained, 0.1), grid("frozen_depth", *DEPTHS)) for pretrained in (0.2, 0.95)
        )
        assert good > poor

    def test_useless_features_are_not_frozen(self) -> None:
        assert inactivity_reason(self.NAME, target(0.1, 0.2)) == NO_REASON
