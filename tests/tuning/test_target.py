from __future__ import annotations

import math

import pytest

from nbt.tuning.target import Target
from tests.fit_profiles import RANDOM, RISING, profile_dict
from tests.tuning.synthetic import facts, profile


def test_facts_are_read() -> None:
    target = Target.of(facts(), None, 12)
    assert (target.epochs, target.validation_images) == (12, 300)
    assert (target.train_images, target.classes, target.images_per_class) == (600.0, 10.0, 60.0)
    assert target.probe is target.advantage is None
    assert target.layer("gain") == []


def test_defaults_without_facts_and_profile() -> None:
    target = Target(epochs=5)
    assert target.train_images is target.classes is target.images_per_class is None
    assert target.validation_images == 200, "the default"
    assert Target.of({"validation_images": 0}, None, 5).validation_images == 200


def test_a_profile_is_read() -> None:
    target = Target.of({}, profile_dict(), 12)
    assert target.probe == RISING[-1]
    assert target.advantage == pytest.approx((RISING[-1] - RANDOM[-1]) / (1 - RANDOM[-1]))
    assert target.layer("gain") == pytest.approx([a - b for a, b in zip(RISING, RANDOM, strict=True)])
    assert (target.train_images, target.images_per_class) == (1200.0, 60.0), "from the profile if the facts lack it"
    assert target.layer("mean_shift") == [], "not measured at any unit"
    assert target.layer("no such column") == []


def test_facts_take_precedence_over_the_profile() -> None:
    assert Target.of({"train_images": 99}, profile_dict(), 12).train_images == 99.0


def test_values_that_are_not_finite_are_ignored() -> None:
    damaged = profile(ridge_accuracy=None, knee_depth=math.nan)
    damaged["layers"][2]["gain"] = math.inf
    target = Target.of(facts(), damaged, 12)
    assert target.probe is target.advantage is None
    assert "knee_depth" not in target.scalars
    assert target.layer("gain") == [], "a column with a missing value is ignored"
    assert len(target.layer("mean_shift")) == 6


def test_a_clear_advantage_needs_measures_and_pretrained_weights() -> None:
    assert Target.of(facts(), profile(0.6, 0.1), 12).has_clear_advantage is None
    measured = profile(0.6, 0.1, samples=500)
    assert Target.of(facts(), measured, 12).has_clear_advantage is True
    assert Target.of(facts(), {**measured, "facts": {"weights": "w.pth"}}, 12).has_clear_advantage is True
    assert Target.of(facts(), {**measured, "facts": {"weights": "none"}}, 12).has_clear_advantage is None
    assert Target.of(facts(), {**measured, "layers": []}, 12).has_clear_advantage is None


@pytest.mark.parametrize(
    ("pretrained", "random", "has_clear", "has_none"),
    [(0.6, 0.1, True, False), (0.6, 0.55, False, False), (0.55, 0.55, False, False), (0.1, 0.1, False, True)],
)
def test_between_a_clear_advantage_and_none_the_profile_does_not_tell(
    pretrained: float, random: float, has_clear: bool, has_none: bool
) -> None:
    target = Target.of(facts(), profile(pretrained, random, samples=500), 12)
    assert (target.has_clear_advantage, target.has_no_advantage) == (has_clear, has_none)


def test_unknown_and_random_weights_are_not_said_to_have_no_advantage() -> None:
    measured = profile(0.1, 0.1, samples=500)
    assert Target.of(facts(), measured, 12).has_no_advantage
    assert not Target.of(facts(), profile(0.1, 0.1), 12).has_no_advantage
    assert not Target.of(facts(), {**measured, "facts": {"weights": "none"}}, 12).has_no_advantage
    assert not Target(epochs=12).has_no_advantage


def test_the_best_units_are_compared() -> None:
    """Noise keeps the image for a few units, and random weights lose it sooner: the last units alone would mislead."""
    measured = profile(0.6, 0.1, samples=500)
    own_units, random_units = (0.5, 0.45, 0.4, 0.3, 0.3, 0.3), (0.6, 0.4, 0.2, 0.1, 0.1, 0.1)
    for row, own, random in zip(measured["layers"], own_units, random_units, strict=True):
        row |= {"ridge_accuracy": own, "ridge_accuracy_random": random}
    assert Target.of(facts(), measured, 12).has_clear_advantage is False
    measured["layers"][3]["ridge_accuracy"] = 0.7
    assert Target.of(facts(), measured, 12).has_clear_advantage is True
