"""Learning rates."""

from __future__ import annotations

import pytest

from nbt.tuning.target import Target
from tests.tuning.priors.suggestions import BASE, FULLY_MEASURED, NO_REASON, best, grid, inactivity_reason, suggestion
from tests.tuning.synthetic import LENGTH, target


class TestModerateUnitRate:
    NAME = "moderate unit rate"
    RATES = tuple(10 ** (-4 + 0.1 * i) for i in range(40))

    def test_the_effective_rate_of_the_default_recipe_is_best(self) -> None:
        assert best(self.NAME, FULLY_MEASURED, grid("body_lr", *self.RATES)) == pytest.approx(0.01)
        without_momentum = grid("body_lr", *self.RATES, momentum=0.0)
        assert best(self.NAME, FULLY_MEASURED, without_momentum) == pytest.approx(0.1)

    def test_it_needs_no_measure_and_no_similarity_of_source_and_target(self) -> None:
        """Li et al. 2020 speak of the similarity of two domains, which the advantage of pretraining is not."""
        words = {suggestion(self.NAME, target(pretrained, 0.0)).words for pretrained in (0.1, 0.5, 0.95)}
        assert len(words) == 1
        assert words == {suggestion(self.NAME, Target(epochs=1)).words}

    def test_momentum_and_rate_count_together(self) -> None:
        log_density = suggestion(self.NAME).log_density
        assert log_density(BASE.replace(body_lr=0.001, momentum=0.9)) == pytest.approx(
            log_density(BASE.replace(body_lr=0.01, momentum=0.0))
        )

    def test_with_all_units_frozen_the_rate_has_no_effect(self) -> None:
        values = {
            suggestion(self.NAME).log_density(settings)
            for settings in grid("body_lr", *self.RATES, frozen_depth=1.0).values()
        }
        assert len(values) == 1 and -9 < values.pop() < 0


class TestLowUnitRateWhenSimilar:
    NAME = "low unit rate when similar"
    RATES = tuple(10 ** (-4 + 0.1 * i) for i in range(40))

    def test_it_lowers_the_rate_of_similar_targets_only(self) -> None:
        similar, other = (Target(epochs=LENGTH, scalars={"similarity": value}) for value in (0.5, 0.49))
        assert best(self.NAME, similar, grid("body_lr", *self.RATES)) == pytest.approx(0.003, rel=0.15)
        assert "(0.50 of 1)" in suggestion(self.NAME, similar).because
        assert inactivity_reason(self.NAME, other) == NO_REASON


class TestModerateHeadRate:
    NAME = "moderate head rate"

    def test_neither_small_nor_large(self) -> None:
        assert best(self.NAME, FULLY_MEASURED, grid("head_lr", 1e-4, 0.02, 1.0)) == 0.02
        assert best(self.NAME, FULLY_MEASURED, grid("head_lr", 1e-3, 0.2, 1.0, momentum=0.0)) == 0.2

    def test_it_needs_no_measure(self) -> None:
        assert best(self.NAME, Target(epochs=1), grid("head_lr", 1e-4, 0.02, 1.0)) == 0.02


class TestRatesByShift:
    NAME = "rates by shift"
    SHAPES = ((-1.0, -0.5, 0.0), (0.0, 0.0, 0.0), (0.0, -0.5, -1.0))

    def shifted(self, *values: float) -> Target:
        return Target(epochs=LENGTH, layers=[{"mean_shift": value} for value in values])

    def test_higher_rates_where_the_statistics_shift_most(self) -> None:
        shapes = grid("layer_lr_shape", *self.SHAPES)
        assert best(self.NAME, self.shifted(0.1, 0.2, 0.5, 0.9), shapes) == self.SHAPES[0]
        assert best(self.NAME, self.shifted(0.9, 0.5, 0.2, 0.1), shapes) == self.SHAPES[2]
        assert "statistics at the top" in suggestion(self.NAME, self.shifted(0.1, 0.5, 0.9)).words
        assert "statistics at the input" in suggestion(self.NAME, self.shifted(0.9, 0.5, 0.1)).words

    def test_no_more_than_a_decade(self) -> None:
        words = suggestion(self.NAME, self.shifted(0.0, 0.5, 100.0)).words
        assert words.startswith("the difference of layer_lr_shape from the input to the top is about 1 (0.2 to 1.8)")

    def test_an_even_shift_or_too_few_units_give_no_suggestion(self) -> None:
        for on in (self.shifted(0.5, 0.4, 0.5), self.shifted(0.1, 0.9)):
            assert inactivity_reason(self.NAME, on) == NO_REASON
