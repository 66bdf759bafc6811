"""When priors are active, and the reasons for which they are not."""

from __future__ import annotations

from typing import Any

import pytest

from nbt.tuning.priors.activation import activate_priors
from nbt.tuning.priors.registry import registered_priors
from nbt.tuning.storage.codec import TLI_SIMILARITIES, TLI_SIMILARITY
from nbt.tuning.target import Target
from tests.tuning.priors.suggestions import FULLY_MEASURED, NAMES, VARIED, inactivity_reason
from tests.tuning.synthetic import LENGTH, facts, profile


def test_all_are_active_on_a_small_target_with_good_features() -> None:
    activations = activate_priors(FULLY_MEASURED, VARIED)
    assert [activation.prior.name for activation in activations if activation.suggestion] == NAMES
    assert all(activation.reason == "" for activation in activations)


def test_priors_without_a_varied_dimension_are_left_out() -> None:
    (activation,) = activate_priors(FULLY_MEASURED, ["frozen_depth"])
    assert activation.prior.name == "freeze when images are few"
    assert activate_priors(FULLY_MEASURED, []) == []


MISSING: dict[str, tuple[dict[str, Any], dict[str, Any] | None, str]] = {
    "transfer up to the knee": ({}, profile(knee_depth=None), "not measured: knee of the gain"),
    "freeze when images are few": ({"train_images": None}, profile(), "not measured: images per class"),
    "low unit rate when similar": ({}, profile(), "not measured: similarity of source and target"),
    "rates by shift": ({}, {**profile(), "layers": []}, "not measured: statistics shift by unit"),
    "average within the training": ({"train_images": None}, None, "not measured: training images"),
    "enough steps": ({"train_images": None}, None, "not measured: training images"),
    "stall while the head is random": (
        {},
        profile(ridge_accuracy_random=None),
        "not measured: advantage over random weights",
    ),
    "zap rarely when training is short": ({"train_images": None}, None, "not measured: images per class"),
    "inject by similarity": ({TLI_SIMILARITY: None}, profile(), "not measured: TLI similarity"),
    "inject the most similar": (
        {TLI_SIMILARITIES: None},
        profile(),
        "not measured: TLI similarity of several teachers",
    ),
    "the expansion when images are few": ({"train_images": None}, None, "not measured: images per class"),
}


@pytest.mark.parametrize("name", MISSING)
def test_without_its_measures_a_prior_is_not_active(name: str) -> None:
    changes, fit_profile, reason = MISSING[name]
    assert inactivity_reason(name, Target.of(facts(**changes), fit_profile, LENGTH)) == reason


def test_all_priors_with_needs_are_tested() -> None:
    assert set(MISSING) == {prior.name for prior in registered_priors() if prior.needs}


def test_every_missing_measure_is_named() -> None:
    reason = inactivity_reason("freeze when images are few", Target(epochs=LENGTH))
    assert reason == "not measured: images per class, probe accuracy, advantage over random weights"


def test_without_measures_only_priors_without_needs_are_active() -> None:
    active = {
        activation.prior.name for activation in activate_priors(Target(epochs=LENGTH), VARIED) if activation.suggestion
    }
    assert active == {prior.name for prior in registered_priors() if not prior.needs}
