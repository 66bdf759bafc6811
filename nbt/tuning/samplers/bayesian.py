"""BayesianSampler: proposes the settings whose expected improvement is greatest, by the guide's model of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from nbt.seeds import derive_seed
from nbt.settings import TransferSettings
from nbt.tuning.baseline_recipes import baseline_recipes
from nbt.tuning.space.dimension import ParamValue
from nbt.tuning.space.encoding import encode
from nbt.tuning.space.sampling import sample_many_params, sample_params
from nbt.tuning.space.space import Space
from nbt.tuning.storage.reader import read_trial
from nbt.tuning.storage.records import TrialRecord
from nbt.tuning.surrogate.logit_score import MAX_GAP_TO_BEST, logit_score, logit_score_variance
from nbt.tuning.surrogate.prior_surrogate import ConditionedSurrogate, PriorSurrogate

FloatArray = NDArray[np.float64]

_NUM_RANDOM_CANDIDATES, _NUM_LOCAL_CANDIDATES = 200, 100
_NUM_RECOMMENDATION_RANDOM, _NUM_RECOMMENDATION_LOCAL, _NUM_RECOMMENDATION_ROUNDS = 1000, 200, 4
# The model is cubic in the number of trials; the best and the newest say most.
_MAX_MODELLED_TRIALS = 300
_MAX_CACHED_SETTINGS = 5000
# A stopped trial without a forecast would have gained something yet, nobody knows how much.
_PRUNED_GAIN, _PRUNED_VARIANCE = 0.5, 1.0


@dataclass(frozen=True)
class Observation:
    """What is known of a trial's merit.

    Attributes:
        settings: That it runs with.
        merit: What it reached, or what is expected of it; None where nothing is known yet.
        variance: Of the merit.
    """

    settings: TransferSettings
    logit_score: float | None
    variance: float


class BayesianSampler(optuna.samplers.BaseSampler):
    """Expected improvement over the best posterior mean of the trials (Mockus 1975) under `PriorSurrogate`.

    Stopped trials count with their forecast, running ones with the mean that the model expects of them (the "kriging
    believer" of Ginsbourger, Le Riche, Carraro 2010), so that workers do not propose the same.

    Args:
        guide: The model.
        space: What is searched.
        length: Epochs of a full trial.
        images: Validation images that accuracies are measured on.
        seed: Of the candidates.
    """

    def __init__(self, surrogate: PriorSurrogate, space: Space, *, length: int, images: int, seed: int) -> None:
        self._guide, self._space, self._length, self._images = surrogate, space, length, images
        self._rng = np.random.default_rng(seed)
        self._distributions = space.distributions()
        self._encoded_cache: dict[TransferSettings, tuple[FloatArray, FloatArray]] = {}
        self._finished: dict[int, Observation] = {}
        self._running: dict[int, Observation] = {}
        self._tried_settings: set[TransferSettings] = set()
        self._settings_cache: dict[tuple[ParamValue, ...], TransferSettings] = {}
        self._recorded_candidates = best_recorded_params(surrogate, space)
        self._study: optuna.Study | None = None
        self._trial_number = -1

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the whole space: settings are proposed in one go."""
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the parameters of the best of random settings, neighbours of good trials, and recorded ones."""
        observations = self._observations()
        candidates = self._candidates(observations)
        settings = [self._space.settings(one, self._length) for one in candidates]
        return dict(candidates[self._choose(settings, observations, kept=False)])

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Is asked only for what the space does not have."""
        raise KeyError(param_name)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Keeps the study for the proposal that follows."""
        self._study, self._trial_number = study, trial.number

    def choose(self, candidates: Sequence[Mapping[str, ParamValue]]) -> int:
        """Returns the index of the candidate to run next; see `nbt.tuning.benchmark.nearest_sampler.ChoosesFromPool`."""
        seen = self._random_half(len(candidates))
        settings = [self._cached_settings(candidates[i]) for i in seen]
        return seen[self._choose(settings, self._observations(), kept=True)]

    def _choose(self, settings: Sequence[TransferSettings], observations: Sequence[Observation], *, kept: bool) -> int:
        """Returns the index of the best settings; what is known of those that come again is kept."""
        self._limit_caches()
        model, best = self._posterior(observations)
        # Twice the same is no news: workers that run at once would share a recorded one, and what failed fails again.
        news = [i for i, one in enumerate(settings) if one not in self._tried_settings] or list(range(len(settings)))
        settings = [settings[i] for i in news]
        if model is None:
            return news[int(np.argmax(self._guide.prior_mean(settings)))]
        mean, spread = model.predict(settings, *(self._encode_cached(settings) if kept else ()))
        return news[int(np.argmax(expected_improvement(mean, spread, best)))]

    def _random_half(self, count: int) -> list[int]:
        """Returns the numbers of a random half of so many candidates: searches with different seeds are to differ."""
        chosen = self._rng.choice(count, size=max(1, int(np.ceil(count / 2))), replace=False)
        return list(chosen.tolist())

    def _posterior(self, observations: Sequence[Observation]) -> tuple[ConditionedSurrogate | None, float]:
        """Returns the model given all trials, and its greatest mean at those that have been judged."""
        judged = [one for one in observations if one.logit_score is not None]
        if not judged:
            return None, 0.0
        tried = [one.settings for one in judged]
        source_scores, points = self._encode_cached(tried)
        model = condition_on_trials(self._guide, judged, source_scores, points)
        running = [one.settings for one in observations if one.logit_score is None]
        if running:
            more_opinions, more_points = self._encode_cached(running)
            means = model.mean(running, more_opinions, more_points)
            imputed = [Observation(s, float(m), 0.0) for s, m in zip(running, means, strict=True)]
            described = np.concatenate([source_scores, more_opinions], axis=1), np.concatenate([points, more_points])
            model = condition_on_trials(self._guide, [*judged, *imputed], *described)
        return model, float(model.mean(tried, source_scores, points).max())

    def _observations(self) -> list[Observation]:
        """Returns what is known of every trial but the one that is being asked for."""
        assert self._study is not None
        found = []
        for trial in self._study.get_trials(deepcopy=False):
            known = self._finished.get(trial.number)
            if known is not None:
                found.append(known)
                continue
            if trial.number == self._trial_number:
                continue
            if trial.number in self._running and not trial.state.is_finished():
                found.append(self._running[trial.number])
                continue
            record = read_trial(trial)
            if record is None:
                continue
            self._tried_settings.add(record.settings)
            observation = to_observation(record, self._images)
            if observation is None:
                continue
            found.append(observation)
            (self._finished if trial.state.is_finished() else self._running)[trial.number] = observation
        return _limit_observations(found)

    def _candidates(self, observations: Sequence[Observation]) -> list[dict[str, ParamValue]]:
        """Returns parameters of random settings, of neighbours of the best trials, and of half of the recorded ones."""
        drawn = sample_many_params(self._space, self._rng, _NUM_RANDOM_CANDIDATES)
        best = sorted(
            (one for one in observations if one.logit_score is not None), key=lambda one: -(one.logit_score or 0.0)
        )[:5]
        good = [self._space.params(one.settings) for one in best]
        fresh = sample_many_params(self._space, self._rng, _NUM_LOCAL_CANDIDATES if good else 0)
        local = [_mutate(self._space, good[i % len(good)], one, self._rng) for i, one in enumerate(fresh)]
        recorded = (
            [self._recorded_candidates[i] for i in self._random_half(len(self._recorded_candidates))]
            if self._recorded_candidates
            else []
        )
        return [*drawn, *local, *recorded]

    def _limit_caches(self) -> None:
        """Empties what is kept of settings before it grows without bound: a live search sees new ones every time."""
        if max(len(self._settings_cache), len(self._encoded_cache)) > _MAX_CACHED_SETTINGS:
            self._settings_cache.clear()
            self._encoded_cache.clear()

    def _cached_settings(self, params: Mapping[str, ParamValue]) -> TransferSettings:
        key = tuple(params[name] for name in self._space.parameters)
        if key not in self._settings_cache:
            self._settings_cache[key] = self._space.settings(params, self._length)
        return self._settings_cache[key]

    def _encode_cached(self, settings: Sequence[TransferSettings]) -> tuple[FloatArray, FloatArray]:
        """Returns opinions and points of settings, each computed once."""
        new = [one for one in dict.fromkeys(settings) if one not in self._encoded_cache]
        if new:
            points = encode(new)
            source_scores = self._guide.source_scores(new, points)
            self._encoded_cache |= {one: (source_scores[:, i], points[i]) for i, one in enumerate(new)}
        known = [self._encoded_cache[one] for one in settings]
        return np.stack([one[0] for one in known], axis=1), np.stack([one[1] for one in known])


def recommend_settings(surrogate: PriorSurrogate, space: Space) -> TransferSettings:
    """Returns the settings that a guide expects to be best before any trial, the baseline_recipes aside; always the same.

    The best of random and of recorded settings are moved about until nothing near them is expected to be better.
    """
    rng = np.random.default_rng(derive_seed(0, "recommendation"))
    length = surrogate.target.epochs
    params = [
        *(sample_params(space, rng) for _ in range(_NUM_RECOMMENDATION_RANDOM)),
        *best_recorded_params(surrogate, space),
    ]
    without = [settings for _, settings in baseline_recipes(length)]
    for _ in range(_NUM_RECOMMENDATION_ROUNDS):
        settings = [space.settings(one, length) for one in params]
        best = surrogate.recommend(settings, without=without)
        start = params[settings.index(best)]
        params = [
            start,
            *(_mutate(space, start, sample_params(space, rng), rng) for _ in range(_NUM_RECOMMENDATION_LOCAL)),
        ]
    return space.settings(_round_params(space, start), length)


def _round_params(space: Space, params: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
    """Returns parameters with three digits, for people; nothing is known to more."""
    found: dict[str, ParamValue] = {}
    for dimension in space.dimensions:
        for name in dimension.parameters:
            value = params[name]
            if isinstance(value, float) and dimension.kind == "float":
                low, high = dimension.bounds()
                value = min(max(float(f"{value:.3g}"), low), high)
            found[name] = value
    return found


def best_recorded_params(surrogate: PriorSurrogate, space: Space) -> list[dict[str, ParamValue]]:
    """Returns parameters of the best recorded settings that a space can express."""
    found = [one.replace(epochs=surrogate.target.epochs) for model in surrogate.experience for one in model.best]
    return [space.params(one) for one in found if space.can_express(one)]


def to_observation(record: TrialRecord, images: int) -> Observation | None:
    """Returns what a trial says of its settings; None of a failed one.

    Args:
        record: Of the trial.
        images: Validation images.
    """
    if record.state == "failed":
        return None
    if record.state == "running":
        return Observation(record.settings, None, 0.0)
    accuracy = record.val_accuracy or 0.0
    noise = float(logit_score_variance(accuracy, images))
    if record.state == "complete":
        return Observation(record.settings, float(logit_score(accuracy, images)), noise)
    forecast = record.forecast
    if not forecast:
        return Observation(
            record.settings, float(logit_score(accuracy, images)) + _PRUNED_GAIN, noise + _PRUNED_VARIANCE
        )
    low, high = (float(logit_score(forecast[name], images)) for name in ("low", "high"))
    # 80 % of a normal distribution lie within 1.28 standard deviations.
    spread = max((high - low) / 2.56, 0.1)
    return Observation(record.settings, float(logit_score(forecast["mean"], images)), noise + spread**2)


def condition_on_trials(
    surrogate: PriorSurrogate,
    observations: Sequence[Observation],
    source_scores: FloatArray | None = None,
    points: FloatArray | None = None,
) -> ConditionedSurrogate:
    """Returns the guide's model given what is known of trials; merits far below the best count alike.

    Args:
        guide: Of the study.
        observations: At least one, each with a merit.
        opinions: `PriorSurrogate.opinions` of their settings, where they are known already.
        points: `encode` of their settings, likewise.
    """
    logit_scores = np.array([one.logit_score for one in observations], dtype=float)
    variance = np.array([one.variance for one in observations])
    floored = np.maximum(logit_scores, logit_scores.max() - MAX_GAP_TO_BEST)
    return surrogate.condition([one.settings for one in observations], floored, variance, source_scores, points)


def expected_improvement(mean: FloatArray, spread: FloatArray, best: float) -> FloatArray:
    """Returns the expected improvement over `best` of normal variables."""
    from scipy.special import ndtr

    gap = (mean - best) / spread
    density = np.exp(-0.5 * gap**2) / np.sqrt(2 * np.pi)
    return np.asarray(spread * (gap * ndtr(gap) + density))


def _limit_observations(observations: list[Observation]) -> list[Observation]:
    if len(observations) <= _MAX_MODELLED_TRIALS:
        return observations
    order = sorted(range(len(observations)), key=lambda i: -(observations[i].logit_score or 0.0))
    kept = {
        *order[: _MAX_MODELLED_TRIALS // 2],
        *range(len(observations) - _MAX_MODELLED_TRIALS // 2, len(observations)),
    }
    return [observations[i] for i in sorted(kept)]


def _mutate(
    space: Space, params: Mapping[str, ParamValue], fresh: Mapping[str, ParamValue], rng: np.random.Generator
) -> dict[str, ParamValue]:
    """Returns parameters of which a few are those of `fresh`, or moved a little towards it where they are numbers."""
    changed: dict[str, ParamValue] = dict(params)
    count = 1 + int(rng.integers(4))
    total = len(space.parameters)
    names = {space.parameters[i] for i in rng.choice(total, size=min(count, total), replace=False)}
    for dimension in space.dimensions:
        for name in dimension.parameters:
            if name in names:
                near = dimension.kind == "float" and rng.random() < 0.7
                changed[name] = dimension.interpolate(params[name], fresh[name], 0.25) if near else fresh[name]
    return changed
