"""Searches with weights that do not help."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from nbt.settings import TransferSettings
from nbt.settings.belief import parse_beliefs
from nbt.training.results import EpochResult
from nbt.tuning.baseline_recipes import default_recipe, from_scratch_recipe
from nbt.tuning.priors.beliefs import belief_priors
from nbt.tuning.samplers.without_transfer import is_transfer_better, starts_without_transfer, tries_from_scratch
from nbt.tuning.space.applicability import unconditional_space
from nbt.tuning.space.space import Space
from nbt.tuning.storage.candidates import CandidateRecord
from nbt.tuning.surrogate.observation import Observation
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import TransferredPriors, make_sampler
from tests.tuning.samplers.test_bayesian import propose
from tests.tuning.synthetic import LENGTH, add, facts, make_study, profile

SPACE = unconditional_space(Space.load("non_binary"))
DEFAULT, SCRATCH = default_recipe(LENGTH), from_scratch_recipe(LENGTH)
USELESS = Target.of(facts(), profile(0.1, 0.1, samples=500), LENGTH)
UNCLEAR = Target.of(facts(), profile(0.6, 0.55, samples=500), LENGTH)
CLEAR = Target.of(facts(), profile(0.6, 0.1, samples=500), LENGTH)
UNKNOWN = Target(epochs=LENGTH)
RANDOM = Target.of(facts(), {**profile(0.1, 0.1, samples=500), "facts": {"weights": "none"}}, LENGTH)


def curve_of(accuracy: float) -> list[EpochResult]:
    return [EpochResult(epoch, 1.0, 1.0, accuracy, 1.0) for epoch in range(1, LENGTH + 1)]


def observe(settings: TransferSettings, score: float | None, variance: float = 0.02) -> Observation:
    return Observation(settings, score, variance)


def make_surrogate(target: Target = USELESS, space: Space = SPACE, **options: Any) -> PriorSurrogate:
    return TransferredPriors(()).surrogate(target, space, **options)


def test_only_weights_without_an_advantage_are_left_out_at_first() -> None:
    assert starts_without_transfer(make_surrogate())
    assert not starts_without_transfer(make_surrogate(UNCLEAR))
    assert not starts_without_transfer(make_surrogate(UNKNOWN))


def make_backbone_surrogate(reference: Target, other: Target, **options: Any) -> PriorSurrogate:
    records = [CandidateRecord(name=name, parameters=1000, cost=1.0) for name in ("net", "other net")]
    space = SPACE.with_backbones(["other"])
    return TransferredPriors(()).backbone_surrogate({"": reference, "other": other}, records, space, **options)


@pytest.mark.parametrize(
    ("reference", "other", "tries", "starts"),
    [
        (USELESS, USELESS, True, True),
        (USELESS, UNCLEAR, True, False),
        (UNCLEAR, UNCLEAR, True, False),
        (USELESS, CLEAR, True, False),
        (CLEAR, USELESS, False, False),
        (UNKNOWN, USELESS, True, False),
        (UNKNOWN, CLEAR, False, False),
        (UNKNOWN, UNKNOWN, False, False),
        (USELESS, UNKNOWN, True, False),
        (RANDOM, USELESS, True, False),
        (RANDOM, CLEAR, False, False),
        (RANDOM, RANDOM, False, False),
    ],
)
def test_of_several_backbones_none_may_have_an_advantage(
    reference: Target, other: Target, tries: bool, starts: bool
) -> None:
    surrogate = make_backbone_surrogate(reference, other)
    assert tries_from_scratch(surrogate) is tries
    assert starts_without_transfer(surrogate) is starts


@pytest.mark.parametrize(("target", "tries"), [(USELESS, True), (UNCLEAR, True), (CLEAR, False), (UNKNOWN, False)])
def test_weights_without_a_clear_advantage_are_compared_with_training_from_scratch(target: Target, tries: bool) -> None:
    assert tries_from_scratch(make_surrogate(target)) is tries


def test_a_belief_about_the_transfer_depth_is_followed_with_every_backbone() -> None:
    document = [{"dimension": "transfer_depth", "from": 0.6, "to": 1.0, "certainty": 0.9}]
    beliefs = belief_priors(parse_beliefs(document), SPACE)
    assert not starts_without_transfer(make_backbone_surrogate(USELESS, USELESS, beliefs=beliefs))


@pytest.mark.parametrize(
    "space",
    [
        SPACE.without(["transfer_depth"]),
        SPACE.with_backbones(["conv3"]),
        Space.load("non_binary").with_teachers(["conv3", "conv4"]),
        Space.load("injection"),
    ],
)
def test_spaces_with_other_weights_or_without_a_transfer_depth_decide_otherwise(space: Space) -> None:
    assert not starts_without_transfer(make_surrogate(space=space))


def test_a_belief_about_the_transfer_depth_is_followed() -> None:
    for dimension, starts in (("transfer_depth", False), ("frozen_depth", True)):
        document = [{"dimension": dimension, "from": 0.6, "to": 1.0, "certainty": 0.9}]
        beliefs = belief_priors(parse_beliefs(document), SPACE)
        assert starts_without_transfer(make_surrogate(beliefs=beliefs)) is starts


OWN = """
name: own
dimensions:
  transfer_depth: {depth}
fixed: {{head_lr: {rate}, body_lr: {rate}}}
"""


@pytest.mark.parametrize(
    ("depth", "rate", "starts"),
    [
        ("{kind: float, low: 0, high: 1, neutral: 1}", 0.03, True),
        ("{kind: float, low: 0.5, high: 1, neutral: 1}", 0.03, False),
        ("{kind: categorical, choices: [0, 1], neutral: 1}", 0.03, True),
        ("{kind: categorical, choices: [0.5, 1], neutral: 1}", 0.03, False),
        ("{kind: float, low: 0, high: 1, neutral: 1}", 0.01, False),
    ],
)
def test_the_space_must_contain_training_from_scratch(depth: str, rate: float, starts: bool) -> None:
    space = Space.parse(OWN.format(depth=depth, rate=rate), source="own.yaml")
    assert starts_without_transfer(make_surrogate(space=space)) is starts


def proposed_depth(study: optuna.Study, space: Space) -> float:
    sampler = make_sampler(make_surrogate(space=space), 0)
    return space.settings(propose(sampler, study), LENGTH).transfer_depth


def test_other_recipes_are_proposed_when_all_trainings_from_scratch_were_tried() -> None:
    """Without transfer, this space has one recipe."""
    space = Space.parse(OWN.format(depth="{kind: float, low: 0, high: 1, neutral: 1}", rate=0.03), source="own.yaml")
    study = make_study()
    add(study, SCRATCH, curve_of(0.5), space=space)
    assert proposed_depth(study, space) > 0.0


def test_a_study_that_began_with_transfers_is_continued_as_it_began() -> None:
    study = make_study()
    add(study, DEFAULT, curve_of(0.5), space=SPACE)
    add(study, DEFAULT.replace(frozen_depth=1.0), curve_of(0.5), space=SPACE)
    sampler = make_sampler(make_surrogate(), 0)
    depths = [SPACE.settings(propose(sampler, study), LENGTH).transfer_depth for _ in range(4)]
    assert max(depths) > 0.0


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
    sampler = make_sampler(make_surrogate(), 0)
    for settings, accuracy in ((DEFAULT, transfer), (SCRATCH, scratch)):
        add(study, settings, curve_of(accuracy), space=SPACE)
    depths = []
    for _ in range(4):
        settings = SPACE.settings(propose(sampler, study), LENGTH)
        depths.append(settings.transfer_depth)
        add(study, settings, curve_of(scratch), space=SPACE)
    assert (max(depths) == 0.0) is is_without


def proposals(study: optuna.Study, surrogate: PriorSurrogate, count: int) -> list[TransferSettings]:
    """Returns so many proposals, each after the score of the one before."""
    sampler, proposed = make_sampler(surrogate, 0), []
    for _ in range(count):
        proposed.append(surrogate.space.settings(propose(sampler, study), LENGTH))
        add(study, proposed[-1], curve_of(0.5), space=surrogate.space)
    return proposed


@pytest.mark.parametrize("other", [USELESS, CLEAR])
def test_proposals_of_several_backbones_without_an_advantage_transfer_nothing(other: Target) -> None:
    surrogate, found = make_backbone_surrogate(USELESS, other), []
    for _ in range(2):
        study = make_study()
        for settings in (DEFAULT, SCRATCH):
            add(study, settings, curve_of(0.5), space=surrogate.space)
        found.append(proposals(study, surrogate, 6))
    assert found[0] == found[1], "the sampler is deterministic"
    assert (max(settings.transfer_depth for settings in found[0]) == 0.0) is (other is USELESS)
    assert {settings.backbone for settings in found[0]} == {"", "other"}


def test_a_transfer_of_any_backbone_can_be_better() -> None:
    surrogate, study = make_backbone_surrogate(USELESS, USELESS), make_study()
    for settings, accuracy in ((DEFAULT, 0.3), (SCRATCH, 0.3), (DEFAULT.replace(backbone="other"), 0.9)):
        add(study, settings, curve_of(accuracy), space=surrogate.space)
    assert max(settings.transfer_depth for settings in proposals(study, surrogate, 4)) > 0.0
