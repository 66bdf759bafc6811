"""Searches with weights that do not help."""

from __future__ import annotations

import pytest

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.baseline_recipes import default_recipe, from_scratch_recipe
from nbt.tuning.samplers.without_transfer import is_transfer_better, starts_without_transfer
from nbt.tuning.space.space import Space
from nbt.tuning.surrogate.observation import Observation
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import TransferredPriors, make_sampler
from tests.tuning.samplers.test_bayesian import propose
from tests.tuning.synthetic import LENGTH, add, facts, make_study, profile

SPACE = Space.load("non_binary")
DEFAULT, SCRATCH = default_recipe(LENGTH), from_scratch_recipe(LENGTH)
USELESS = Target.of(facts(), profile(0.1, 0.1, samples=500), LENGTH)


def curve_of(accuracy: float) -> list[EpochResult]:
    return [EpochResult(epoch, 1.0, 1.0, accuracy, 1.0) for epoch in range(1, LENGTH + 1)]


def observe(settings: TransferSettings, score: float | None, variance: float = 0.02) -> Observation:
    return Observation(settings, score, variance)


def test_only_weights_without_an_advantage_are_left_out_at_first() -> None:
    assert starts_without_transfer(USELESS, SPACE)
    assert not starts_without_transfer(Target.of(facts(), profile(0.6, 0.55, samples=500), LENGTH), SPACE)
    assert not starts_without_transfer(Target(epochs=LENGTH), SPACE)


def test_spaces_without_a_transfer_depth_or_with_several_backbones_decide_otherwise() -> None:
    assert not starts_without_transfer(USELESS, SPACE.without(["transfer_depth"]))
    assert not starts_without_transfer(USELESS, SPACE.with_backbones(["conv3"]))


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        ("{kind: float, low: 0, high: 1, neutral: 1}", True),
        ("{kind: float, low: 0.5, high: 1, neutral: 1}", False),
        ("{kind: categorical, choices: [0, 1], neutral: 1}", True),
        ("{kind: categorical, choices: [0.5, 1], neutral: 1}", False),
    ],
)
def test_the_space_must_contain_training_from_scratch(text: str, starts: bool) -> None:
    space = Space.parse(f"name: own\ndimensions:\n  transfer_depth: {text}\n", source="own.yaml")
    assert starts_without_transfer(USELESS, space) is starts
    if starts:
        study, sampler = make_study(), make_sampler(TransferredPriors(()).surrogate(USELESS, space), 0)
        assert space.settings(propose(sampler, study), LENGTH).transfer_depth == 0.0


@pytest.mark.parametrize(
    ("transfer", "scratch", "is_better"),
    [(1.0, 0.5, True), (0.8, 0.5, False), (0.5, 1.0, False), (None, 0.5, False), (1.0, None, False)],
)
def test_a_transfer_is_better_by_two_standard_errors(
    transfer: float | None, scratch: float | None, is_better: bool
) -> None:
    observations = [observe(DEFAULT, transfer), observe(SCRATCH, scratch)]
    assert is_transfer_better(observations) is is_better


def test_the_best_trial_of_each_side_counts() -> None:
    observations = [observe(DEFAULT, 1.0), observe(SCRATCH, 0.2), observe(SCRATCH, 0.9)]
    assert not is_transfer_better(observations)
    assert is_transfer_better([*observations, observe(DEFAULT, 2.0)])


@pytest.mark.parametrize(("transfer", "scratch", "is_without"), [(0.5, 0.5, True), (0.9, 0.3, False)])
def test_proposals_transfer_nothing_until_a_transfer_is_clearly_better(
    transfer: float, scratch: float, is_without: bool
) -> None:
    study = make_study()
    sampler = make_sampler(TransferredPriors(()).surrogate(USELESS, SPACE), 0)
    for settings, accuracy in ((DEFAULT, transfer), (SCRATCH, scratch)):
        add(study, settings, curve_of(accuracy), space=SPACE)
    depths = []
    for _ in range(4):
        settings = SPACE.settings(propose(sampler, study), LENGTH)
        depths.append(settings.transfer_depth)
        add(study, settings, curve_of(scratch), space=SPACE)
    assert (max(depths) == 0.0) is is_without
