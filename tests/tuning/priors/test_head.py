"""The start of the head."""

from __future__ import annotations

import pytest

from tests.tuning.priors.suggestions import BASE, FULLY_MEASURED, NO_REASON, best, grid, inactivity_reason, suggestion
from tests.tuning.synthetic import target


class TestStallWhileTheHeadIsRandom:
    NAME = "stall while the head is random"

    def test_good_features_prefer_a_small_head_or_a_short_stall(self) -> None:
        assert best(self.NAME, FULLY_MEASURED, grid("head_scale", 0.0, 0.01, 0.1, 1.0)) == 0.0
        assert best(self.NAME, FULLY_MEASURED, grid("stall", 0.0, 0.05, 0.1, 0.2, 0.3)) == 0.1

    def test_either_is_enough(self) -> None:
        log_density = suggestion(self.NAME).log_density
        both, head = BASE.replace(head_scale=0.0, stall=0.1), BASE.replace(head_scale=0.0)
        assert log_density(both) == pytest.approx(log_density(head))
        assert log_density(head) > log_density(BASE)

    def test_it_is_not_active_for_useless_features(self) -> None:
        assert inactivity_reason(self.NAME, target(0.2, 0.15)) == NO_REASON

    def test_the_effect_grows_with_the_features(self) -> None:
        good, fair = (suggestion(self.NAME, target(pretrained, 0.1)).log_density for pretrained in (0.9, 0.5))
        small_head = BASE.replace(head_scale=0.0)
        assert good(small_head) - good(BASE) > fair(small_head) - fair(BASE) > 0
