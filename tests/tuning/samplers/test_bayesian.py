from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.settings import TransferSettings
from nbt.tuning.benchmark.nearest_sampler import PoolSampler
from nbt.tuning.relative_cost import relative_cost
from nbt.tuning.samplers import bayesian as module
from nbt.tuning.samplers.bayesian import (
    BayesianSampler,
    expected_improvement,
)
from nbt.tuning.space.space import Space, space_names
from nbt.tuning.surrogate import observation as observation_module
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import make_sampler
from tests.tuning.benchmark.tables import FULL_SPACE
from tests.tuning.synthetic import (
    LENGTH,
    SPACE,
    TREES,
    Task,
    add,
    draw,
    make_study,
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

    def test_cheap_settings_are_preferred_down_to_the_floor(self, full_surrogate: PriorSurrogate) -> None:
        study = make_study()
        for recipe in draw(8):
            add(study, recipe, TREES.curve(recipe))

        def costs(floor: float | None) -> list[float]:
            samplers = (make_sampler(full_surrogate, seed, cost_floor=floor) for seed in range(12))
            return [relative_cost(SPACE.settings(propose(sampler, study), LENGTH)) for sampler in samplers]

        assert np.mean(costs(0.2)) < np.mean(costs(None))
        assert costs(100.0) == costs(None), "every cost is raised to the floor"

    def test_the_expected_gain_is_unknown_at_first_and_falls_with_the_trials(
        self, full_surrogate: PriorSurrogate
    ) -> None:
        study = make_study()
        assert make_sampler(full_surrogate, 0).expected_gain(study) is None
        gains = []
        for recipe in draw(60):
            add(study, recipe, TREES.curve(recipe))
            if len(study.get_trials()) in (2, 60):
                gains.append(make_sampler(full_surrogate, 0).expected_gain(study))
        first, last = gains
        assert first is not None and last is not None
        assert 0.0 < last < first < 0.5

    def test_unjudged_dimensions_are_neutral_until_a_trial_has_a_score(self) -> None:
        surrogate, study = PriorSurrogate(target(), FULL_SPACE), make_study()
        assert "head_lr_multiplier" in surrogate.unjudged
        default = FULL_SPACE.default(LENGTH)
        proposed = [FULL_SPACE.settings(propose(make_sampler(surrogate, seed), study), LENGTH) for seed in range(5)]
        assert all(recipe.value(name) == default.value(name) for recipe in proposed for name in surrogate.unjudged)
        assert len(set(proposed)) == 5, "the other dimensions vary"
        add(study, default, TREES.curve(default))
        later = [propose(make_sampler(surrogate, seed), study)["decay_strength"] for seed in range(5)]
        assert len(set(later)) > 1, "with trials, unjudged dimensions are explored, too"

    def test_proposals_follow_the_trials_if_experience_is_wrong(self, full_surrogate: PriorSurrogate) -> None:
        odd = Task("odd", rate=0.6, frozen=1.0)
        searches = [search(full_surrogate, 30, seed=seed, task=odd) for seed in range(4)]
        true_logits = np.array([[odd.true_logit(recipe) for recipe in proposed] for proposed in searches])
        # The medians ignore occasional explorations that fail; single searches depend on rounding.
        first, last = (np.median(part, axis=1).mean() for part in (true_logits[:, :5], true_logits[:, -10:]))
        assert last > first + 0.3
        assert last > np.quantile([odd.true_logit(recipe) for recipe in draw(200)], 0.6)

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
        assert np.median([true_logit[i] for i in chosen]) > np.quantile(true_logit, 0.7)
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


class TestObservations:
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
    def test_a_search_with_many_trials_continues(self, full_surrogate: PriorSurrogate) -> None:
        study, sampler = make_study(), make_sampler(full_surrogate, 0)
        with patch.object(observation_module, "_MAX_MODELLED_TRIALS", 20):
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
