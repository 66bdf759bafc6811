"""Bayesian optimisation: a sampler that maximises the expected improvement under the prior surrogate."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from nbt.settings import TransferSettings
from nbt.tuning.baseline_recipes import from_scratch_recipe
from nbt.tuning.relative_cost import CostModel, relative_cost
from nbt.tuning.samplers.candidates import best_recorded_params
from nbt.tuning.samplers.without_transfer import is_transfer_better, starts_without_transfer, without_transfer
from nbt.tuning.space.dimension import ParamValue
from nbt.tuning.space.encoding import encode
from nbt.tuning.space.sampling import mutate, neutral_params, sample_many_params
from nbt.tuning.space.space import BACKBONE, EPOCHS, Space
from nbt.tuning.storage.finished_trials import FinishedTrials
from nbt.tuning.storage.reader import read_trial
from nbt.tuning.surrogate.logit_score import accuracy_from_logit_score
from nbt.tuning.surrogate.observation import Observation, ObservationLog, condition_on_trials, to_observation
from nbt.tuning.surrogate.prior_surrogate import ConditionedSurrogate, PriorSurrogate

FloatArray = NDArray[np.float64]

_NUM_RANDOM_CANDIDATES, _NUM_LOCAL_CANDIDATES = 200, 100
_MAX_CACHED_SETTINGS = 5000


class BayesianSampler(optuna.samplers.BaseSampler):
    """Sampler that maximises the expected improvement over the best posterior mean of the trials (Mockus 1975).

    The model is a `PriorSurrogate`. Pruned trials enter it with their forecast, and running trials with their posterior
    mean (the "kriging believer" of Ginsbourger, Le Riche, Carraro 2010), so that parallel workers receive different
    settings. Where the pretrained weights of no backbone have an advantage over random ones
    (`Target.has_no_advantage`), it proposes trainings from scratch until a trial that transfers is clearly better than
    all of them.

    Args:
        surrogate: Model of the logit score.
        space: Search space.
        length: Epochs of a full trial.
        images: Number of validation images.
        seed: Seed of the random candidates.
        cost_floor: Least cost by which the expected improvement is divided, above 0, relative to the default recipe on
            the most expensive backbone; settings that cost less gain nothing more, so that good expensive settings are
            still proposed. None ignores the cost.
        cost_model: Estimates the cost of trainings of the task; that of a backbone of ten equal units when None.

    Attributes:
        max_cost: Cost of the next proposal at most, in trainings of the default recipe; needs a cost model.
    """

    def __init__(
        self,
        surrogate: PriorSurrogate,
        space: Space,
        *,
        length: int,
        images: int,
        seed: int,
        cost_floor: float | None = None,
        cost_model: CostModel | None = None,
    ) -> None:
        self.max_cost = math.inf
        self._cost_model = cost_model
        self._surrogate, self._space, self._length, self._images = surrogate, space, length, images
        self._cost_floor = cost_floor
        self._rng = np.random.default_rng(seed)
        self._distributions = space.distributions()
        self._encoded_cache: dict[TransferSettings, tuple[FloatArray, FloatArray]] = {}
        self._finished_trials, self._finished = FinishedTrials(), ObservationLog()
        self._running: dict[int, Observation] = {}
        self._tried: set[int] = set()  # hashes of settings: thousands of recipes take much more memory
        self._settings_cache: dict[tuple[ParamValue, ...], TransferSettings] = {}
        self._recorded_candidates = best_recorded_params(surrogate, space)
        self._unjudged = neutral_params(d for d in space.dimensions if d.name in surrogate.unjudged)
        self._default = neutral_params(space.dimensions)
        self._starts_without_transfer = starts_without_transfer(surrogate)
        self._study: optuna.Study | None = None
        self._trial_number = -1

    @property
    def random_state(self) -> str:
        """State of the random generator as JSON; a sampler with the same state and trials proposes the same."""
        return json.dumps(self._rng.bit_generator.state)

    @random_state.setter
    def random_state(self, state: str) -> None:
        self._rng.bit_generator.state = json.loads(state)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the distributions of the whole space: all parameters are sampled jointly."""
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the candidate with the greatest expected improvement.

        Candidates are random settings, neighbours of the best trials, and the best settings of recorded tasks.
        """
        observations = self._observations()
        candidates = self._candidates(observations)
        settings = [self._space.settings(params, self._length) for params in candidates]
        return dict(candidates[self._choose(settings, observations, cached=False)])

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Returns the most epochs that the budget allows; Optuna calls it if more were proposed.

        Raises:
            KeyError: The parameter is outside the space.
        """
        if param_name == EPOCHS and isinstance(param_distribution, IntDistribution):
            return param_distribution.high
        raise KeyError(param_name)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Stores the study and the trial's number for the proposal that follows."""
        self._study, self._trial_number = study, trial.number

    def choose(self, candidates: Sequence[Mapping[str, ParamValue]]) -> int:
        """Returns the index of the candidate to run next; see `nbt.tuning.benchmark.nearest_sampler.PoolSampler`."""
        subset = self._random_half(len(candidates))
        settings = [self._cached_settings(candidates[i]) for i in subset]
        return subset[self._choose(settings, self._observations(), cached=True)]

    def expected_gain(self, study: optuna.Study) -> float | None:
        """Returns the expected improvement of the best candidate, as a difference of scores, 0 ... 1.

        Args:
            study: The study.

        Returns:
            The gain over the best posterior mean; None while no trial is complete.
        """
        self._study, self._trial_number = study, -1
        observations = self._observations()
        model, best = self._posterior(observations)
        if model is None or not any(trial.state is TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)):
            return None
        settings = [self._space.settings(params, self._length) for params in self._candidates(observations)]
        gains = expected_improvement(*model.predict(settings), best)
        if (costs := self._costs(settings)) is not None:
            gains /= np.maximum(costs, 1.0)
        improvement = float(gains.max())
        before, after = accuracy_from_logit_score([best, best + improvement], self._images)
        return float(after - before)

    def _choose(
        self, settings: Sequence[TransferSettings], observations: Sequence[Observation], *, cached: bool
    ) -> int:
        """Returns the index of the settings with the greatest expected improvement.

        Args:
            settings: Candidates.
            observations: The study's trials.
            cached: Whether to cache the encodings, which pays if the same settings are candidates of later trials.
        """
        self._limit_caches()
        model, best = self._posterior(observations)
        # Settings that are running, finished or failed are not proposed again, unless every candidate was tried.
        untried = [i for i, recipe in enumerate(settings) if hash(recipe) not in self._tried] or list(
            range(len(settings))
        )
        costs = self._costs([settings[i] for i in untried])
        if costs is not None:
            affordable = np.flatnonzero(costs <= max(self.max_cost, costs.min()))
            untried, costs = [untried[i] for i in affordable], costs[affordable]
        settings = [settings[i] for i in untried]
        if model is None:
            return untried[int(np.argmax(self._surrogate.prior_mean(settings)))]
        mean, std = model.predict(settings, *(self._encode_cached(settings) if cached else ()))
        gains = expected_improvement(mean, std, best)
        if costs is not None:
            most = max([1.0, *self._surrogate.backbone_costs.values()])
            gains /= np.maximum(costs, (self._cost_floor or 0.0) * most)
        return untried[int(np.argmax(gains))]

    def _costs(self, settings: Sequence[TransferSettings]) -> FloatArray | None:
        """Returns the estimated costs of trials relative to the default recipe; None if proposals ignore them."""
        if self._cost_floor is None:
            return None
        return np.array([self._cost(recipe) for recipe in settings])

    def _cost(self, settings: TransferSettings) -> float:
        if self._cost_model is not None:
            return self._cost_model.training(settings) / self._length
        backbone = self._surrogate.backbone_costs.get(settings.backbone, 1.0)
        return backbone * relative_cost(settings) * settings.epochs / self._length

    def _random_half(self, count: int) -> list[int]:
        """Returns the indices of a random half of `count` candidates, so that searches with different seeds differ."""
        indices = self._rng.choice(count, size=max(1, int(np.ceil(count / 2))), replace=False)
        return list(indices.tolist())

    def _posterior(self, observations: Sequence[Observation]) -> tuple[ConditionedSurrogate | None, float]:
        """Returns the model conditioned on all trials, and its greatest mean at the trials with a score.

        The model is None while no trial has a score.
        """
        scored = [observation for observation in observations if observation.logit_score is not None]
        if not scored:
            return None, 0.0
        tried = [observation.settings for observation in scored]
        source_scores, points = self._encode_cached(tried)
        model = condition_on_trials(self._surrogate, scored, source_scores, points)
        running = [observation.settings for observation in observations if observation.logit_score is None]
        if running:
            running_scores, running_points = self._encode_cached(running)
            means = model.mean(running, running_scores, running_points)
            imputed = [Observation(recipe, float(mean), 0.0) for recipe, mean in zip(running, means, strict=True)]
            all_scores = np.concatenate([source_scores, running_scores], axis=1)
            all_points = np.concatenate([points, running_points])
            model = condition_on_trials(self._surrogate, [*scored, *imputed], all_scores, all_points)
        return model, float(model.mean(tried, source_scores, points).max())

    def _observations(self) -> list[Observation]:
        """Returns the observations of all trials but the one that is being sampled."""
        assert self._study is not None
        for trial in self._finished_trials.update(self._study.get_trials(deepcopy=False)):
            self._running.pop(trial.number, None)
            if (observation := self._observe(trial)) is not None:
                self._finished.add(trial.number, observation)
        for trial in self._finished_trials.unfinished:
            new = trial.number not in self._running and trial.number != self._trial_number
            if new and (observation := self._observe(trial)) is not None:
                self._running[trial.number] = observation
        return self._finished.limited(self._running)

    def _observe(self, trial: FrozenTrial) -> Observation | None:
        """Returns the observation of a trial and notes its settings; None if it failed or has not started."""
        record = read_trial(trial)
        if record is None:
            return None
        self._tried.add(hash(record.settings))
        return to_observation(record, self._images, self._surrogate.target.metric)

    def _candidates(self, observations: Sequence[Observation]) -> list[dict[str, ParamValue]]:
        """Returns parameters of random settings, of neighbours of the best trials, and half the recorded settings.

        In a search over several backbones, the default recipe, the best trials and these recorded settings are also
        candidates with every backbone.

        While no trial has a score, dimensions that neither a prior nor a recorded task judges are neutral.
        """
        random = sample_many_params(self._space, self._rng, _NUM_RANDOM_CANDIDATES)
        best = sorted(
            (observation for observation in observations if observation.logit_score is not None),
            key=lambda observation: -(observation.logit_score or 0.0),
        )[:5]
        if not best:
            random = [params | self._unjudged for params in random]
        starts = [self._space.params(observation.settings) for observation in best]
        fresh = sample_many_params(self._space, self._rng, _NUM_LOCAL_CANDIDATES if starts else 0)
        local = [mutate(self._space, starts[i % len(starts)], params, self._rng) for i, params in enumerate(fresh)]
        recorded = (
            [self._recorded_candidates[i] for i in self._random_half(len(self._recorded_candidates))]
            if self._recorded_candidates
            else []
        )
        moved = self._with_every_backbone([self._default, *starts, *recorded]) if self._space.has_backbones else []
        candidates = [*random, *local, *recorded, *moved]
        if self._starts_without_transfer and not is_transfer_better(observations):
            return self._without_transfer(candidates)
        return candidates

    def _without_transfer(self, candidates: list[dict[str, ParamValue]]) -> list[dict[str, ParamValue]]:
        """Returns the candidates from scratch, unless all of them were tried or the study began with transfers only."""
        if hash(from_scratch_recipe(self._surrogate.target.epochs)) not in self._tried:
            return candidates
        from_scratch = without_transfer(candidates)
        settings = (self._space.settings(params, self._length) for params in from_scratch)
        return from_scratch if any(hash(recipe) not in self._tried for recipe in settings) else candidates

    def _with_every_backbone(self, candidates: Sequence[Mapping[str, ParamValue]]) -> list[dict[str, ParamValue]]:
        return [{**params, BACKBONE: name} for params in candidates for name in self._surrogate.backbone_costs]

    def _limit_caches(self) -> None:
        """Clears the caches when they are full: a live search proposes new settings all the time."""
        if max(len(self._settings_cache), len(self._encoded_cache)) > _MAX_CACHED_SETTINGS:
            self._settings_cache.clear()
            self._encoded_cache.clear()

    def _cached_settings(self, params: Mapping[str, ParamValue]) -> TransferSettings:
        key = tuple(params[name] for name in self._space.parameters)
        if key not in self._settings_cache:
            self._settings_cache[key] = self._space.settings(params, self._length)
        return self._settings_cache[key]

    def _encode_cached(self, settings: Sequence[TransferSettings]) -> tuple[FloatArray, FloatArray]:
        """Returns the source scores, (sources, settings), and the points of settings, using the cache."""
        encoded = list(map(self._encoded_cache.get, settings))
        new = list(dict.fromkeys(recipe for recipe, known in zip(settings, encoded, strict=True) if known is None))
        if new:
            points = encode(new)
            source_scores = self._surrogate.source_scores(new, points)
            self._encoded_cache |= {recipe: (source_scores[:, i], points[i]) for i, recipe in enumerate(new)}
        found = [known or self._encoded_cache[recipe] for recipe, known in zip(settings, encoded, strict=True)]
        return np.stack([scores for scores, _ in found], axis=1), np.stack([point for _, point in found])


def expected_improvement(mean: FloatArray, std: FloatArray, best: float) -> FloatArray:
    """Returns the expected improvement over `best` of normal variables.

    Args:
        mean: Means of the variables.
        std: Standard deviations, above 0.
        best: Value to improve on.
    """
    from scipy.special import ndtr

    gap = (mean - best) / std
    density = np.exp(-0.5 * gap**2) / np.sqrt(2 * np.pi)
    return np.asarray(std * (gap * ndtr(gap) + density))
