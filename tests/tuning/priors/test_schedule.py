"""Augmentation, batch size and the average of the weights."""

from __future__ import annotations

import pytest

from nbt.settings import AUGMENTATIONS
from tests.tuning.priors.suggestions import BASE, FULLY_MEASURED, NO_REASON, best, grid, inactivity_reason, suggestion
from tests.tuning.synthetic import target


class TestMildAugmentationWhenShort:
    NAME = "mild augmentation when short"

    def test_crops_and_no_mixing(self) -> None:
        assert best(self.NAME, FULLY_MEASURED, grid("augmentation", *AUGMENTATIONS)) == "crop"
        assert best(self.NAME, FULLY_MEASURED, grid("mixup", 0.4, 0.2, 0.0)) == 0.0

    def test_with_all_units_frozen_only_the_augmentation_counts(self) -> None:
        log_density = suggestion(self.NAME).log_density
        all_frozen = BASE.replace(frozen_depth=1.0)
        assert log_density(all_frozen) == log_density(all_frozen.replace(mixup=0.4))

    def test_it_is_not_active_for_long_training(self) -> None:
        assert inactivity_reason(self.NAME, target(epochs=31)) == NO_REASON


class TestAverageWithinTheTraining:
    NAME = "average within the training"

    def test_the_density_falls_with_too_long_a_horizon(self) -> None:
        log_density = suggestion(self.NAME).log_density
        scores = [log_density(BASE.replace(ema=ema)) for ema in (0.0, 0.9, 0.98, 0.995)]
        assert scores[0] == scores[1] == 0.0, "225 steps are enough for an average over 10"
        assert 0.0 > scores[2] > scores[3]

    def test_larger_batches_have_fewer_steps(self) -> None:
        log_density = suggestion(self.NAME).log_density
        assert log_density(BASE.replace(ema=0.98, batch_size=64)) < log_density(BASE.replace(ema=0.98, batch_size=16))

    def test_with_many_images_every_horizon_is_equal(self) -> None:
        log_density = suggestion(self.NAME, target(train_images=100_000)).log_density
        assert log_density(BASE.replace(ema=0.995)) == 0.0


class TestEnoughSteps:
    NAME = "enough steps"

    def test_few_images_prefer_small_batches(self) -> None:
        log_density = suggestion(self.NAME).log_density
        small, usual, large = (log_density(BASE.replace(batch_size=size)) for size in (16, 32, 64))
        assert small == usual == 0.0, "the batches of the default recipe are small enough"
        assert large == pytest.approx(-0.503, abs=0.001), "one octave is 0.301 decades"
        assert "batches of 32 images give only 225 steps" in suggestion(self.NAME).words

    def test_it_is_not_active_with_many_images(self) -> None:
        assert inactivity_reason(self.NAME, target(train_images=6000)) == NO_REASON
