from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from nbt.tuning.priors.registry import registered_priors
from nbt.tuning.space.encoding import encode
from nbt.tuning.space.space import Space, space_names
from nbt.tuning.surrogate import prior_surrogate as module
from nbt.tuning.surrogate.prior_surrogate import RECORDED_TASKS, ConditionedSurrogate, PriorSurrogate
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import TransferredPriors
from tests.tuning.synthetic import (
    BIRDS,
    LENGTH,
    SPACE,
    TREES,
    Task,
    draw,
    facts,
    profile,
    source_tables,
    table,
    target,
    transferred_priors,
    trees_target,
)

CANDIDATES = draw(200, seed=3)
BIRDS_TABLE = source_tables()[0]
OTHER_PROFILE = profile() | {"facts": {"backbone": "squeezenet1_0"}}


def rank(values: np.ndarray, others: np.ndarray | list[float]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(values, others).statistic)


@pytest.fixture(scope="module")
def full_surrogate() -> PriorSurrogate:
    return transferred_priors().surrogate(trees_target(), SPACE)


class TestSources:
    def test_priors_come_first_then_recorded_tasks(self, full_surrogate: PriorSurrogate) -> None:
        names = [source.name for source in full_surrogate.sources]
        active = [
            activation.prior.name for activation in full_surrogate.activations if activation.suggestion is not None
        ]
        assert names == [*active, RECORDED_TASKS]
        assert all(source.words and source.origin and source.spread > 0 for source in full_surrogate.sources)

    def test_rules_count_less_the_more_tables_of_the_own_architecture_there_are(self) -> None:
        strengths = {prior.name: prior.strength for prior in registered_priors()}
        shares = []
        for count in range(4):
            surrogate = TransferredPriors(source_tables()[:count]).surrogate(trees_target(), SPACE)
            priors = [source for source in surrogate.sources if source.name != RECORDED_TASKS]
            total = sum(strengths[source.name] for source in priors)
            shares.append(sum(source.mean for source in priors) / total)
            assert sum(source.spread for source in priors) == pytest.approx(0.7 * shares[-1] * total)
            assert [source.mean for source in surrogate.sources if source.name == RECORDED_TASKS] == [1.0] * (count > 0)
        assert shares == pytest.approx([1.0, 1 / 2, 1 / 3, 1 / 4]), "all tasks are identical"

    def test_rules_keep_their_weight_beside_tables_of_another_architecture(self) -> None:
        header = dataclasses.replace(BIRDS_TABLE.header, profile=OTHER_PROFILE)
        other = dataclasses.replace(BIRDS_TABLE, header=header)
        alone, beside = (TransferredPriors(tables).surrogate(trees_target(), SPACE) for tables in ([], [other]))
        assert [source.mean for source in beside.sources][:-1] == [source.mean for source in alone.sources]
        assert beside.kernel.amplitude == alone.kernel.amplitude

    def test_the_origin_names_the_most_similar_tasks(self) -> None:
        tables = [table(BIRDS, 12), table(Task("moons"), 12, profile=profile(0.2, 0.1))]
        recorded = TransferredPriors(tables).surrogate(trees_target(), SPACE).sources[-1]
        assert recorded.origin.startswith("task similarity 1.00 to birds, 0.")
        assert recorded.origin.endswith("to moons")

    def test_tables_of_other_architectures_alone_are_no_reason(self) -> None:
        header = dataclasses.replace(BIRDS_TABLE.header, profile=OTHER_PROFILE)
        other = TransferredPriors([dataclasses.replace(BIRDS_TABLE, header=header)]).surrogate(trees_target(), SPACE)
        own = TransferredPriors([BIRDS_TABLE]).surrogate(trees_target(), SPACE)
        assert other.sources[-1].origin == "all tables are of other architectures"
        assert other.reasons(CANDIDATES[0])[-1] == [] and len(own.reasons(CANDIDATES[0])[-1]) == 1

    def test_without_priors_the_tables_have_all_weight(self) -> None:
        surrogate = transferred_priors().surrogate(trees_target(), SPACE, heuristics=False)
        assert surrogate.activations == []
        assert [source.mean for source in surrogate.sources] == [1.0]

    def test_without_sources_the_prior_mean_is_zero(self) -> None:
        surrogate = PriorSurrogate(Target(epochs=LENGTH), SPACE, heuristics=False)
        assert surrogate.sources == ()
        assert list(surrogate.prior_mean(CANDIDATES)) == [0.0] * len(CANDIDATES)

    def test_it_is_explained_in_json_types(self) -> None:
        surrogate = TransferredPriors(source_tables()[:1]).surrogate(Target.of(facts(), None, LENGTH), SPACE)
        explanation = json.loads(json.dumps(surrogate.explain()))
        assert explanation["tables"] == ["birds · conv3"]
        assert [source["name"] for source in explanation["sources"]] == [source.name for source in surrogate.sources]
        assert set(explanation["sources"][0]) == {"name", "words", "origin", "mean", "spread"}
        silent = {prior["name"]: prior["reason"] for prior in explanation["silent"]}
        assert silent["transfer up to the knee"] == "not measured: knee of the gain, advantage over random weights"
        assert silent.keys().isdisjoint(source.name for source in surrogate.sources)


class TestSourceScores:
    def test_scores_of_priors_are_standardised(self) -> None:
        surrogate = PriorSurrogate(target(), SPACE)
        scores = surrogate.source_scores(draw(600, seed=8))
        assert scores.mean(axis=1) == pytest.approx(np.zeros(len(scores)), abs=0.3)
        assert scores.std(axis=1) == pytest.approx(np.ones(len(scores)), abs=0.3)
        assert np.abs(scores).max() <= 3.0

    def test_scores_of_recorded_tasks_are_logit_scores(self) -> None:
        surrogate = transferred_priors().surrogate(trees_target(), SPACE, heuristics=False)
        assert surrogate.experience is not None
        predicted = surrogate.experience.for_target(trees_target()).predict(CANDIDATES)
        scores = surrogate.source_scores(CANDIDATES)[0]
        inside = np.abs(scores) < 3
        assert np.diff(scores[inside]) == pytest.approx(np.diff(predicted[inside]))

    def test_a_constant_prior_has_zero_scores(self) -> None:
        """With very many images, every average of the weights is short enough."""
        surrogate = PriorSurrogate(target(train_images=10**7), SPACE)
        row = [source.name for source in surrogate.sources].index("average within the training")
        assert surrogate.source_scores(CANDIDATES)[row] == pytest.approx(np.zeros(len(CANDIDATES)), abs=1e-5)

    def test_settings_are_scored_independently(self, full_surrogate: PriorSurrogate) -> None:
        together = full_surrogate.prior_mean(CANDIDATES[:5])
        assert [float(full_surrogate.prior_mean([recipe])[0]) for recipe in CANDIDATES[:5]] == pytest.approx(
            list(together)
        )


class TestPriorMean:
    def test_tables_rank_the_settings_of_a_similar_task(self, full_surrogate: PriorSurrogate) -> None:
        true_logit = [TREES.true_logit(recipe) for recipe in CANDIDATES]
        assert rank(full_surrogate.prior_mean(CANDIDATES), true_logit) > 0.7

    def test_priors_rank_better_than_chance(self) -> None:
        true_logit = [TREES.true_logit(recipe) for recipe in CANDIDATES]
        assert rank(PriorSurrogate(trees_target(), SPACE).prior_mean(CANDIDATES), true_logit) > 0.1

    def test_a_recommendation_is_the_best_that_is_not_excluded(self, full_surrogate: PriorSurrogate) -> None:
        order = np.argsort(-full_surrogate.prior_mean(CANDIDATES))
        best, second = CANDIDATES[order[0]], CANDIDATES[order[1]]
        assert full_surrogate.recommend(CANDIDATES) == best
        assert full_surrogate.recommend(CANDIDATES, without=[best]) == second
        assert full_surrogate.recommend([best], without=[best]) == best, "without other candidates"

    def test_ties_are_broken_by_order(self) -> None:
        surrogate = PriorSurrogate(Target(epochs=LENGTH), SPACE, heuristics=False)
        assert surrogate.recommend(CANDIDATES) == CANDIDATES[0]

    @pytest.mark.parametrize("name", space_names())
    def test_it_is_finite_in_any_shipped_space(self, name: str) -> None:
        space = Space.load(name)
        surrogate = transferred_priors().surrogate(trees_target(), space)
        expected = surrogate.prior_mean(draw(50, space=space))
        assert np.isfinite(expected).all() and np.ptp(expected) > 0
        assert {activation.prior.name for activation in surrogate.activations} <= {
            prior.name for prior in registered_priors()
        }


def conditioned(
    surrogate: PriorSurrogate, trials: int, task: Task = TREES, variance: float = 0.05
) -> ConditionedSurrogate:
    settings = draw(trials, seed=4)
    logit_scores = np.array([task.true_logit(recipe) for recipe in settings]) / 0.4
    return surrogate.condition(settings, logit_scores, np.full(trials, variance))


class TestConditionedSurrogate:
    def test_precomputed_scores_and_points_give_the_same_result(self, full_surrogate: PriorSurrogate) -> None:
        settings = draw(20, seed=4)
        logit_scores, variance = np.arange(20.0), np.full(20, 0.1)
        points, source_scores = encode(settings), full_surrogate.source_scores(settings)
        computed, precomputed = (
            full_surrogate.condition(settings, logit_scores, variance, *arguments)
            for arguments in ((), (source_scores, points))
        )
        expected = computed.predict(CANDIDATES)
        predicted = precomputed.predict(CANDIDATES, full_surrogate.source_scores(CANDIDATES), encode(CANDIDATES))
        for values, expected_values in zip(predicted, expected, strict=True):
            assert values == pytest.approx(expected_values)

    def test_without_sources_it_is_a_plain_process(self) -> None:
        surrogate = PriorSurrogate(Target(epochs=LENGTH), SPACE, heuristics=False)
        model = conditioned(surrogate, 30)
        assert model.weights() == []
        assert rank(model.predict(CANDIDATES)[0], [TREES.true_logit(recipe) for recipe in CANDIDATES]) > 0.3

    def test_one_trial_sets_the_level_only(self, full_surrogate: PriorSurrogate) -> None:
        [tried] = draw(1, seed=4)
        model = full_surrogate.condition([tried], np.array([7.0]), np.array([1e-3]))
        assert model.predict([tried])[0] == pytest.approx(7.0, abs=0.3)
        assert rank(model.predict(CANDIDATES)[0], full_surrogate.prior_mean(CANDIDATES)) > 0.7

    def test_the_level_of_a_task_does_not_matter(self, full_surrogate: PriorSurrogate) -> None:
        settings, logit_scores = draw(10, seed=4), np.arange(10.0) / 5
        low, high = (
            full_surrogate.condition(settings, logit_scores + shift, np.full(10, 0.1)) for shift in (0.0, 100.0)
        )
        assert high.predict(CANDIDATES)[0] == pytest.approx(low.predict(CANDIDATES)[0] + 100)

    def test_trials_gain_influence_with_their_number(self, full_surrogate: PriorSurrogate) -> None:
        """On a task that contradicts the tables."""
        odd = Task("odd", rate=1.5, frozen=1.0)
        true_logit = [odd.true_logit(recipe) for recipe in CANDIDATES]
        ranks = [rank(full_surrogate.prior_mean(CANDIDATES), true_logit)]
        ranks += [rank(conditioned(full_surrogate, n, odd).predict(CANDIDATES)[0], true_logit) for n in (10, 40, 160)]
        assert ranks[0] < 0.2
        assert ranks[3] > ranks[2] > ranks[0] and ranks[3] > 0.6

    def test_tables_that_the_trials_contradict_lose_their_weight(self, full_surrogate: PriorSurrogate) -> None:
        before = sum(source.mean for source in full_surrogate.sources[-1:])
        after, followed = [], []
        for n in (5, 20, 80):
            settings = draw(n, seed=4)
            opposite = 3.0 - full_surrogate.source_scores(settings)[-1]
            model = full_surrogate.condition(settings, opposite, np.full(n, 0.05))
            after.append(sum(weight["after"] for weight in model.weights()[-1:]))
            followed.append(rank(model.predict(CANDIDATES)[0], full_surrogate.source_scores(CANDIDATES)[-1]))
        assert before > after[0] > after[1] > after[2]
        assert after[2] < 0.2 * before
        assert followed[0] > followed[1] > followed[2] and followed[2] < 0

    def test_tables_that_the_trials_confirm_keep_it(self, full_surrogate: PriorSurrogate) -> None:
        before = sum(source.mean for source in full_surrogate.sources[-1:])
        assert sum(weight["after"] for weight in conditioned(full_surrogate, 60).weights()[-1:]) > 0.8 * before

    def test_the_uncertainty_of_weights_decreases(self, full_surrogate: PriorSurrogate) -> None:
        for source, few, many in zip(
            full_surrogate.sources,
            conditioned(full_surrogate, 5).weights(),
            conditioned(full_surrogate, 80).weights(),
            strict=True,
        ):
            assert source.spread >= few["after_spread"] >= many["after_spread"] > 0

    def test_a_trial_reduces_the_uncertainty_only_nearby(self, full_surrogate: PriorSurrogate) -> None:
        tried = draw(1, seed=4)
        model = full_surrogate.condition(tried, np.array([1.0]), np.array([1e-3]))
        spread = model.predict([*tried, *CANDIDATES])[1]
        assert spread[0] < 0.6 * spread[1:].min()

    def test_an_uncertain_trial_has_less_influence(self, full_surrogate: PriorSurrogate) -> None:
        tried = draw(2, seed=4)
        certain, uncertain = (
            full_surrogate.condition(tried, np.array([0.0, 3.0]), np.array([1e-3, variance]))
            for variance in (1e-3, 9.0)
        )
        assert certain.predict(tried)[0][1] > uncertain.predict(tried)[0][1]


class TestKernel:
    def test_tables_reduce_the_amplitude(self, full_surrogate: PriorSurrogate) -> None:
        assert full_surrogate.kernel.amplitude < PriorSurrogate(target(), SPACE).kernel.amplitude


def test_the_reference_settings_are_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (PriorSurrogate(target(), SPACE).prior_mean(CANDIDATES) for _ in range(2))
    assert (first == second).all()
    monkeypatch.setattr(module, "_NUM_REFERENCE_SETTINGS", 32)
    assert (PriorSurrogate(target(), SPACE).prior_mean(CANDIDATES) != first).any()
