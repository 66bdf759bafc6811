"""Zapping."""

from __future__ import annotations

from tests.tuning.priors.suggestions import BASE, NO_REASON, inactivity_reason, suggestion
from tests.tuning.synthetic import target


class TestZapSeldomWhenShort:
    NAME = "zap rarely when training is short"

    def test_no_zap_is_best_and_more_are_worse(self) -> None:
        log_density = suggestion(self.NAME).log_density
        scores = [log_density(BASE.replace(zap_period=period)) for period in (0, 6, 3, 1)]
        assert scores == sorted(scores, reverse=True) and len(set(scores)) == 4
        assert log_density(BASE.replace(zap_period=3, zap_fraction=0.2)) > log_density(BASE.replace(zap_period=3))

    def test_the_effect_grows_with_fewer_images_per_class(self) -> None:
        few, some = (suggestion(self.NAME, target(train_images=images)).log_density for images in (50, 400))
        assert few(BASE.replace(zap_period=3)) < some(BASE.replace(zap_period=3))

    def test_it_is_not_active_for_long_training(self) -> None:
        assert inactivity_reason(self.NAME, target(epochs=100, train_images=5000)) == NO_REASON


class TestStopZappingEarly:
    NAME = "stop zapping early"

    def test_the_published_range_is_best(self) -> None:
        log_density = suggestion(self.NAME).log_density
        scores = [log_density(BASE.replace(zap_period=2, zap_until=share)) for share in (0.62, 0.75, 0.9, 1.0)]
        assert scores == sorted(scores, reverse=True) and len(set(scores)) == 4

    def test_without_zaps_the_share_has_no_effect(self) -> None:
        log_density = suggestion(self.NAME).log_density
        assert log_density(BASE) == -0.5
