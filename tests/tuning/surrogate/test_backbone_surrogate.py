from __future__ import annotations

import numpy as np
import pytest

from nbt.tuning.baseline_recipes import default_recipe
from nbt.tuning.samplers.recommendation import recommend_settings
from nbt.tuning.storage.candidates import BackboneForecast, CandidateRecord
from nbt.tuning.surrogate.backbone_surrogate import BackboneSurrogate
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from tests.tuning.synthetic import LENGTH, SPACE, draw, target, transferred_priors

SPACE_OF_TWO = SPACE.with_backbones(["other"])
DEFAULT = default_recipe(LENGTH)
OTHER = DEFAULT.replace(backbone="other")


def candidate(name: str, log_odds: float | None, cost: float = 1.0) -> CandidateRecord:
    forecast = None
    if log_odds is not None:
        mean = 1 / (1 + np.exp(-log_odds))
        forecast = BackboneForecast(mean=mean, low=mean - 0.1, high=mean + 0.1, log_odds=log_odds, spread=0.4)
    return CandidateRecord(name=name, parameters=1000, cost=cost, forecast=forecast)


def make(other: float | None = 0.2, reference: float | None = 1.0) -> BackboneSurrogate:
    targets = {"": target(0.6, 0.1), "other": target(0.3, 0.29)}
    found = transferred_priors().backbone_surrogate(
        targets, [candidate("net", reference), candidate("other net", other, cost=0.5)], SPACE_OF_TWO
    )
    assert isinstance(found, BackboneSurrogate)
    return found


def offsets(surrogate: PriorSurrogate) -> dict[str, float]:
    return {source.name: source.mean for source in surrogate.sources if source.name.startswith("backbone: ")}


def test_the_forecasts_give_the_offsets_in_logit_scores() -> None:
    assert offsets(make()) == pytest.approx({"backbone: net": 0.0, "backbone: other net": -0.8 / 0.4})
    assert offsets(make(other=None)) == pytest.approx({"backbone: net": 0.0, "backbone: other net": 0.0})
    assert make().backbone_costs == {"": 1.0, "other": 0.5}


def test_each_backbone_has_its_target() -> None:
    surrogate = make()
    assert [(name, target.probe) for name, target in surrogate.targets.items()] == [("", 0.6), ("other", 0.3)]
    single = PriorSurrogate(target(0.6, 0.1), SPACE)
    assert single.targets == {"": single.target}


def test_each_backbone_has_the_priors_of_its_own_profile() -> None:
    surrogate = make()
    names = [source.name for source in surrogate.sources]
    own = {name: {source.name for source in member.sources} for name, member in surrogate._members.items()}
    assert own[""] != own["other"], "the profiles differ so much that other priors are active"
    scores = surrogate.source_scores([DEFAULT, OTHER])
    for row, name in zip(scores[:-2], names[:-2], strict=True):
        for column, backbone in enumerate(("", "other")):
            assert (row[column] == 0.0) == (name not in own[backbone])
    assert scores[-2:].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_each_backbone_has_the_prior_mean_of_its_own() -> None:
    """Priors have another weight with each, because the tables are not equally similar."""
    surrogate, offset = make(), offsets(make())["backbone: other net"]
    settings = draw(20)
    other = [recipe.replace(backbone="other") for recipe in settings]
    members = surrogate._members
    assert {source.mean for source in members[""].sources} != {source.mean for source in members["other"].sources}
    assert surrogate.prior_mean(settings) == pytest.approx(members[""].prior_mean(settings))
    assert surrogate.prior_mean(other) == pytest.approx(members["other"].prior_mean(settings) + offset)


def test_trials_of_one_backbone_say_less_about_the_other() -> None:
    surrogate = make(other=1.0)
    before = surrogate.condition([DEFAULT], np.array([0.0]), np.array([0.1])).predict([DEFAULT, OTHER])
    assert before[1][1] > 2 * before[1][0]
    after = surrogate.condition([DEFAULT, OTHER], np.array([0.0, 2.0]), np.array([0.1, 0.1])).predict([DEFAULT, OTHER])
    assert after[0][1] - after[0][0] > 1.0
    assert after[1][1] < before[1][1]


def test_a_bad_backbone_is_not_expected_to_improve() -> None:
    for log_odds, is_worth_it in ((0.8, True), (-4.0, False)):
        model = make(other=log_odds).condition([DEFAULT], np.array([2.5]), np.array([0.1]))
        mean, std = model.predict([OTHER])
        assert bool(mean[0] + 2 * std[0] > 2.5) == is_worth_it


def test_the_recommendation_is_of_the_better_backbone() -> None:
    assert recommend_settings(make(other=-1.0), SPACE_OF_TWO).backbone == ""
    assert recommend_settings(make(other=3.0), SPACE_OF_TWO).backbone == "other"


def test_sources_are_explained_for_settings_of_any_backbone() -> None:
    surrogate = make()
    for settings in (DEFAULT, OTHER):
        assert len(surrogate.reasons(settings)) == len(surrogate.sources)
        assert len(surrogate.explain(settings)["sources"]) == len(surrogate.sources)
    assert "backbone" not in surrogate.unjudged
