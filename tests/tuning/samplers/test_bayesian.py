from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.baseline_recipes import baseline_recipes
from nbt.tuning.benchmark.nearest_sampler import PoolSampler
from nbt.tuning.samplers import bayesian as module
from nbt.tuning.samplers.bayesian import (
    BayesianSampler,
    Observation,
    best_recorded_params,
    condition_on_trials,
    expected_improvement,
    recommend_settings,
    to_observation,
)
from nbt.tuning.space.sampling import sample_params
from nbt.tuning.space.space import Space, space_names
from nbt.tuning.surrogate.logit_score import MAX_GAP_TO_BEST, logit_score, logit_score_variance
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import make_sampler
from tests.tuning.synthetic import (
    IMAGES,
    LENGTH,
    SPACE,
    TREES,
    Task,
    add,
    draw,
    make_study,
    record,
    target,
    transferred_priors,
    trees_target,
)

BARE = Target(epochs=LENGTH)


@pytest.fixture(scope="module")
def full_surrogate() -> PriorSurrogate:
    return transferred_priors().surrogate(trees_target(), SPACE)


@pytest.fixture(autouse=True)
def reduce_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NUM_RANDOM_CANDIDATES", 120)
    monkeypatch.setattr(module, "_NUM_LOCAL_CANDIDATES", 60)


def propose(sampler: BayesianSampler, study: optuna.Study) -> dict[str, Any]:
    """Returns the parameters of the next trial."""
    trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
    trial.number = len(study.get_trials(deepcopy=False))
    sampler.before_trial(study, trial)
    return sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))


def search(
    surrogate: PriorSurrogate, trials: int, *, seed: int = 0, task: Task = TREES, state: str = "complete"
) -> list[TransferSettings]:
    """Returns the settings of a search's trials in order."""
    study, sampler, proposed = make_study(), make_sampler(surrogate, seed), []
    for _ in range(trials):
        settings = surrogate.space.settings(propose(sampler, study), LENGTH)
        add(study, settings, task.curve(settings) if state != "running" else (), state=state, space=surrogate.space)
        proposed.append(settings)
    return proposed


class TestProposals:
    @pytest.mark.parametrize("name", space_names())
    def test_proposals_are_inside_any_shipped_space(self, name: str) -> None:
        space = Space.load(name)
        sampler, study = make_sampler(transferred_priors().surrogate(trees_target(), space), 0), make_study()
        for _ in range(12):
            params = propose(sampler, study)
            assert set(params) == set(space.parameters)
            assert all(
                space.distributions()[key]._contains(space.distributions()[key].to_internal_repr(value))
                for key, value in params.items()
            )
            settings = space.settings(params, LENGTH)
            assert settings.epochs == LENGTH and space.can_express(settings)
            add(study, settings, TREES.curve(settings), space=space)

    def test_optuna_accepts_the_sampler(self, full_surrogate: PriorSurrogate) -> None:
        study = optuna.create_study(sampler=make_sampler(full_surrogate, 0), direction="maximize")
        trial = study.ask(SPACE.distributions())
        assert SPACE.settings(trial.params, LENGTH).epochs == LENGTH

    def test_proposals_depend_on_the_seed(self, full_surrogate: PriorSurrogate) -> None:
        first, repeated, other = (search(full_surrogate, 6, seed=seed) for seed in (1, 1, 2))
        assert first == repeated
        assert first[0] != other[0] and len(set(first) & set(other)) < 3, "recorded settings are candidates of both"

    def test_proposals_are_better_than_chance_from_the_first_on(self, full_surrogate: PriorSurrogate) -> None:
        random = np.mean([TREES.true_logit(recipe) for recipe in draw(200)])
        good = np.quantile([TREES.true_logit(recipe) for recipe in draw(200)], 0.9)
        true_logits = [TREES.true_logit(recipe) for recipe in search(full_surrogate, 12)]
        assert true_logits[0] > random and max(true_logits) > good and np.median(true_logits) > good - 0.3

    def test_proposals_follow_the_trials_if_experience_is_wrong(self, full_surrogate: PriorSurrogate) -> None:
        odd = Task("odd", rate=0.6, frozen=1.0)
        true_logits = [odd.true_logit(recipe) for recipe in search(full_surrogate, 30, task=odd)]
        # The median ignores occasional explorations that fail.
        assert np.median(true_logits[-10:]) > np.median(true_logits[:5]) + 0.5
        assert np.median(true_logits[-10:]) > np.quantile([odd.true_logit(recipe) for recipe in draw(200)], 0.8)

    @pytest.mark.parametrize("on", [BARE, target()])
    @pytest.mark.parametrize("heuristics", [True, False])
    def test_neither_experience_nor_profile_is_needed(self, on: Target, heuristics: bool) -> None:
        proposed = search(PriorSurrogate(on, SPACE, heuristics=heuristics), 25)
        assert len(set(proposed)) == 25
        random = [TREES.true_logit(recipe) for recipe in draw(200)]
        assert np.mean([TREES.true_logit(recipe) for recipe in proposed[-10:]]) > np.median(random)

    @pytest.mark.parametrize("name", space_names())
    def test_running_settings_are_not_proposed_again(self, name: str) -> None:
        surrogate = transferred_priors().surrogate(trees_target(), Space.load(name))
        assert len(set(search(surrogate, 12, state="running"))) == 12, "no trial has a score"
        sampler, study = make_sampler(surrogate, 0), make_study()
        first = surrogate.space.default(LENGTH)
        add(study, first, TREES.curve(first), space=surrogate.space)
        proposed = []
        for _ in range(12):
            proposed.append(surrogate.space.settings(propose(sampler, study), LENGTH))
            add(study, proposed[-1], state="running", space=surrogate.space)
        assert len({first, *proposed}) == 13

    def test_failed_settings_are_not_proposed_again(self, full_surrogate: PriorSurrogate) -> None:
        assert len(set(search(full_surrogate, 12, state="failed"))) == 12

    def test_caches_are_bounded_and_do_not_change_the_proposals(
        self, full_surrogate: PriorSurrogate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unlimited = search(full_surrogate, 8, seed=3)
        monkeypatch.setattr(module, "_MAX_CACHED_SETTINGS", 50)
        assert search(full_surrogate, 8, seed=3) == unlimited
        sampler, study = make_sampler(full_surrogate, 3), make_study()
        for _ in range(5):
            propose(sampler, study)
        assert max(len(sampler._encoded_cache), len(sampler._settings_cache)) < 2 * 180

    def test_parameters_outside_the_space_are_an_error(self, full_surrogate: PriorSurrogate) -> None:
        sampler, study = make_sampler(full_surrogate, 0), make_study()
        trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
        with pytest.raises(KeyError, match="dropout"):
            sampler.sample_independent(study, trial, "dropout", optuna.distributions.FloatDistribution(0, 1))

    def test_the_trial_being_sampled_is_not_observed(self, full_surrogate: PriorSurrogate) -> None:
        """Optuna lists it as running, without settings or with those of an earlier session."""
        sampler, study = make_sampler(full_surrogate, 0), make_study()
        add(study, SPACE.default(LENGTH), TREES.curve(SPACE.default(LENGTH)))
        number = add(study, draw(1)[0], state="running")
        sampler.before_trial(study, study.get_trials()[number])
        assert [observation.settings for observation in sampler._observations()] == [SPACE.default(LENGTH)]


class TestChoice:
    POOL = draw(60, seed=31)
    PARAMS = [SPACE.params(recipe) for recipe in POOL]

    def choose(self, sampler: BayesianSampler, study: optuna.Study, params: Sequence[Any] = PARAMS) -> int:
        trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
        trial.number = len(study.get_trials(deepcopy=False))
        sampler.before_trial(study, trial)
        return sampler.choose(params)

    def test_choice_from_a_pool(self, full_surrogate: PriorSurrogate) -> None:
        sampler, study = make_sampler(full_surrogate, 0), make_study()
        assert isinstance(sampler, PoolSampler)
        true_logit = [TREES.true_logit(recipe) for recipe in self.POOL]
        remaining, chosen = list(range(60)), []
        for _ in range(15):
            index = remaining.pop(self.choose(sampler, study, [self.PARAMS[i] for i in remaining]))
            chosen.append(index)
            add(study, self.POOL[index], TREES.curve(self.POOL[index]))
        assert np.median([true_logit[i] for i in chosen]) > np.quantile(true_logit, 0.8)
        assert int(np.argmax(true_logit)) in chosen

    def test_a_single_candidate_is_chosen(self, full_surrogate: PriorSurrogate) -> None:
        study = make_study()
        add(study, self.POOL[0], TREES.curve(self.POOL[0]))
        assert self.choose(make_sampler(full_surrogate, 0), study, self.PARAMS[:1]) == 0, "even if it was tried"

    def test_a_random_half_of_the_candidates_is_considered(self, full_surrogate: PriorSurrogate) -> None:
        chosen = [self.choose(make_sampler(full_surrogate, seed), make_study()) for seed in range(40)]
        counts = np.bincount(chosen)
        best = int(np.argmax(full_surrogate.prior_mean(self.POOL)))
        assert counts.argmax() == best and 10 <= counts[best] <= 30


def pruned_observation(number: int, settings: TransferSettings, accuracy: float, **forecast: Any) -> Observation:
    rows = (EpochResult(1, 1.0, 1.0, accuracy, 1.0),)
    observation = to_observation(record(number, settings, rows, state="pruned", forecast=forecast or None), IMAGES)
    assert observation is not None
    return observation


class TestObservations:
    BASE = TransferSettings(epochs=LENGTH)

    def test_a_complete_trial_has_its_score(self) -> None:
        curve = TREES.curve(self.BASE)
        observation = to_observation(record(0, self.BASE, curve), IMAGES)
        best = max(row.val_accuracy or 0.0 for row in curve)
        assert observation is not None and observation.settings == self.BASE
        assert observation.logit_score == pytest.approx(float(logit_score(best, IMAGES)))
        assert observation.variance == pytest.approx(float(logit_score_variance(best, IMAGES)))

    def test_failed_and_running_trials(self) -> None:
        assert to_observation(record(0, self.BASE, TREES.curve(self.BASE, epochs=3), state="failed"), IMAGES) is None
        running = to_observation(record(0, self.BASE, TREES.curve(self.BASE, epochs=3), state="running"), IMAGES)
        assert running == Observation(self.BASE, None, 0.0)

    def test_a_diverged_trial_has_the_lowest_score(self) -> None:
        rows = (EpochResult(1, 1.0, 1.0, 0.7, 1.0), EpochResult(2, float("inf"), None, None, 1.0, diverged=True))
        observation = to_observation(record(0, self.BASE, rows), IMAGES)
        assert observation is not None and observation.logit_score == pytest.approx(float(logit_score(0.0, IMAGES)))

    def test_a_pruned_trial_has_its_forecast(self) -> None:
        observation = pruned_observation(0, self.BASE, 0.3, mean=0.6, low=0.5, high=0.7)
        assert observation.logit_score == pytest.approx(float(logit_score(0.6, IMAGES)))
        narrow = pruned_observation(0, self.BASE, 0.3, mean=0.6, low=0.59, high=0.61)
        assert narrow.variance < observation.variance
        assert narrow.logit_score == observation.logit_score

    def test_an_interval_of_zero_width_keeps_a_variance(self) -> None:
        observation = pruned_observation(0, self.BASE, 0.6, mean=0.6, low=0.6, high=0.6)
        assert observation.variance == pytest.approx(float(logit_score_variance(0.6, IMAGES)) + 0.01)

    def test_a_pruned_trial_without_forecast_has_an_assumed_gain(self) -> None:
        observation = pruned_observation(0, self.BASE, 0.3)
        assert observation.logit_score is not None and observation.logit_score > float(logit_score(0.3, IMAGES))
        assert observation.variance > 1.0

    def test_forecasts_influence_the_proposals(self, full_surrogate: PriorSurrogate) -> None:
        """Good forecasts attract the proposals and bad forecasts repel them."""
        recipes = sorted(draw(200, seed=5), key=lambda recipe: recipe.frozen_depth)
        means = []
        for good in (recipes[-10:], recipes[:10]):
            study = make_study()
            for recipe in (*recipes[:10], *recipes[-10:]):
                mean = 0.9 if recipe in good else 0.3
                forecast = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02}
                add(study, recipe, TREES.curve(recipe, epochs=3), state="pruned", forecast=forecast)
            surrogate = PriorSurrogate(BARE, SPACE, heuristics=False)
            proposed = [SPACE.settings(propose(make_sampler(surrogate, seed), study), LENGTH) for seed in range(6)]
            means.append(np.mean([recipe.frozen_depth for recipe in proposed]))
        assert means[0] > means[1] + 0.4

    def test_failed_trials_have_no_influence(self, full_surrogate: PriorSurrogate) -> None:
        """Failed trials do not change the proposals, unless these would be the failed settings."""
        settings, curve = draw(4, seed=6), TREES.curve
        plain, failing = make_study(), make_study()
        for recipe in settings:
            add(plain, recipe, curve(recipe))
            add(failing, recipe, curve(recipe))
            add(failing, draw(1, seed=99)[0], curve(recipe, epochs=2), state="failed")
        assert propose(make_sampler(full_surrogate, 3), plain) == propose(make_sampler(full_surrogate, 3), failing)

    def test_queued_trials_have_no_influence(self, full_surrogate: PriorSurrogate) -> None:
        plain, queued = make_study(), make_study()
        queued.enqueue_trial(SPACE.params(draw(1)[0]))
        queued.ask(SPACE.distributions())
        assert propose(make_sampler(full_surrogate, 3), plain) == propose(make_sampler(full_surrogate, 3), queued)

    def test_scores_far_below_the_best_are_floored(self, full_surrogate: PriorSurrogate) -> None:
        settings, level = draw(6, seed=6), float(logit_score(0.9, IMAGES))
        bad, worse = (
            [Observation(recipe, level - (drop if i else 0.0), 0.05) for i, recipe in enumerate(settings)]
            for drop in (MAX_GAP_TO_BEST, 10 * MAX_GAP_TO_BEST)
        )
        means = [condition_on_trials(full_surrogate, trials).predict(draw(20))[0] for trials in (bad, worse)]
        assert means[0] == pytest.approx(means[1])

    def test_finished_trials_are_read_once(
        self, full_surrogate: PriorSurrogate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[int] = []
        original = module.read_trial

        def count(trial: optuna.trial.FrozenTrial) -> Any:
            read.append(trial.number)
            return original(trial)

        monkeypatch.setattr(module, "read_trial", count)
        search(full_surrogate, 8)
        assert read == list(range(7))


class TestManyTrials:
    def test_the_best_and_the_newest_are_kept(self) -> None:
        trials = [Observation(recipe, float(i % 97), 0.1) for i, recipe in enumerate(draw(400, seed=8))]
        kept = module._limit_observations(trials)
        assert len(kept) <= module._MAX_MODELLED_TRIALS == 300
        assert kept[-150:] == trials[-150:], "in order"
        best = sorted(trials, key=lambda trial: -(trial.logit_score or 0.0))[:150]
        assert all(trial in kept for trial in best)
        assert module._limit_observations(trials[:300]) == trials[:300]

    def test_running_trials_are_kept(self) -> None:
        trials = [Observation(recipe, 5.0, 0.1) for recipe in draw(400, seed=8)]
        trials[-3:] = [dataclasses.replace(trial, logit_score=None) for trial in trials[-3:]]
        assert module._limit_observations(trials)[-3:] == trials[-3:]

    def test_a_search_with_many_trials_continues(self, full_surrogate: PriorSurrogate) -> None:
        study, sampler = make_study(), make_sampler(full_surrogate, 0)
        with patch.object(module, "_MAX_MODELLED_TRIALS", 20):
            for recipe in draw(50, seed=8):
                add(study, recipe, TREES.curve(recipe))
            settings = SPACE.settings(propose(sampler, study), LENGTH)
            model, _ = sampler._posterior(sampler._observations())
        assert model is not None and len(model.process.values) <= 20
        assert TREES.true_logit(settings) > np.median([TREES.true_logit(recipe) for recipe in draw(200)])


FINITE = st.floats(-1e3, 1e3)


class TestExpectedImprovement:
    @given(FINITE, st.floats(1e-5, 1e3), FINITE)
    def test_it_is_never_negative(self, mean: float, std: float, best: float) -> None:
        improvement = expected_improvement(np.array([mean]), np.array([std]), best)
        assert np.isfinite(improvement).all() and improvement[0] >= 0.0
        assert improvement[0] >= mean - best - 1e-6 * (1 + abs(mean - best))

    def test_it_is_the_mean_improvement(self) -> None:
        values = np.random.default_rng(0).normal(0.3, 0.8, 400_000)
        improvement = expected_improvement(np.array([0.3]), np.array([0.8]), 0.5)
        assert improvement[0] == pytest.approx(np.maximum(values - 0.5, 0.0).mean(), rel=0.02)

    @given(FINITE, st.floats(0.01, 10.0), st.floats(0.0, 10.0))
    def test_it_grows_with_mean_and_standard_deviation(self, mean: float, std: float, more: float) -> None:
        means, stds = np.array([mean, mean + more, mean]), np.array([std, std, std + more])
        low, better, wider = expected_improvement(means, stds, 0.0)
        assert better >= low - 1e-9 and wider >= low - 1e-9 * (1 + abs(mean))


class TestRecommendation:
    def test_it_is_deterministic_and_no_baseline_recipe(self, full_surrogate: PriorSurrogate) -> None:
        first = recommend_settings(full_surrogate, SPACE)
        assert first == recommend_settings(transferred_priors().surrogate(trees_target(), SPACE), SPACE)
        assert first not in [settings for _, settings in baseline_recipes(LENGTH)]

    def test_it_is_expected_to_be_better_than_random_and_recorded_settings(
        self, full_surrogate: PriorSurrogate
    ) -> None:
        best = float(full_surrogate.prior_mean([recommend_settings(full_surrogate, SPACE)])[0])
        recorded = [SPACE.settings(params, LENGTH) for params in best_recorded_params(full_surrogate, SPACE)]
        assert best >= full_surrogate.prior_mean([*recorded, *draw(300)]).max()

    def test_it_is_in_the_best_five_percent(self, full_surrogate: PriorSurrogate) -> None:
        assert TREES.true_logit(recommend_settings(full_surrogate, SPACE)) > np.quantile(
            [TREES.true_logit(recipe) for recipe in draw(300)], 0.95
        )

    @pytest.mark.parametrize("name", space_names())
    @pytest.mark.parametrize("on", [BARE, target()])
    def test_every_space_and_target_has_a_recommendation(self, name: str, on: Target) -> None:
        space = Space.load(name)
        recommended = recommend_settings(PriorSurrogate(on, space), space)
        assert space.can_express(recommended) and recommended.epochs == LENGTH

    def test_it_has_the_epochs_of_the_trials(self) -> None:
        short = dataclasses.replace(trees_target(), epochs=5)
        assert recommend_settings(transferred_priors().surrogate(short, SPACE), SPACE).epochs == 5


class TestRecordedCandidates:
    def test_the_best_settings_of_every_task_are_candidates(self, full_surrogate: PriorSurrogate) -> None:
        candidates = best_recorded_params(full_surrogate, SPACE)
        assert len(candidates) == 3 * 12
        assert {SPACE.settings(params, LENGTH) for params in candidates} == {
            recipe for model in full_surrogate.experience for recipe in model.best
        }

    def test_settings_outside_the_space_are_no_candidates(self) -> None:
        binary = Space.load("binary")
        for params in best_recorded_params(transferred_priors().surrogate(trees_target(), binary), binary):
            assert binary.settings(params, LENGTH)


def test_mutations_change_few_parameters_and_stay_inside() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        start = sample_params(SPACE, rng)
        moved = module._mutate(SPACE, start, sample_params(SPACE, rng), rng)
        assert set(moved) == set(start)
        assert sum(moved[name] != start[name] for name in start) <= 4
        assert SPACE.settings(moved, LENGTH)
    ends = {name: SPACE.distributions()[name].high for name in ("transfer_depth", "head_lr")}  # type: ignore[attr-defined]
    start = {**sample_params(SPACE, rng), **ends}
    assert all(SPACE.settings(module._mutate(SPACE, start, sample_params(SPACE, rng), rng), LENGTH) for _ in range(200))
