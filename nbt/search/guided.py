"""GuidedSampler: proposes the settings whose expected improvement is greatest, by the guide's model of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from nbt.search.anchors import anchors
from nbt.search.encoding import encode
from nbt.search.guide import Conditioned, Guide
from nbt.search.merit import FLOOR, merit, merit_variance
from nbt.search.reading import read_trial
from nbt.search.recording import draw_many, draw_params
from nbt.search.records import TrialRecord
from nbt.search.space import Space, Value
from nbt.settings import TransferSettings
from nbt.training.seeds import derive_seed

Vector = NDArray[np.float64]

_RANDOM, _LOCAL = 200, 100
_FIRST_RANDOM, _FIRST_LOCAL, _ROUNDS = 1000, 200, 4
# The model is cubic in the number of trials; the best and the newest say most.
_MOST = 300
_REMEMBERED = 5000
# A stopped trial without a forecast would have gained something yet, nobody knows how much.
_STOPPED_GAIN, _STOPPED_VARIANCE = 0.5, 1.0


@dataclass(frozen=True)
class Observation:
    """What is known of a trial's merit.

    Attributes:
        settings: That it runs with.
        merit: What it reached, or what is expected of it; None where nothing is known yet.
        variance: Of the merit.
    """

    settings: TransferSettings
    merit: float | None
    variance: float


class GuidedSampler(optuna.samplers.BaseSampler):
    """Expected improvement over the best posterior mean of the trials (Mockus 1975) under `Guide`.

    Stopped trials count with their forecast, running ones with the mean that the model expects of them (the "kriging
    believer" of Ginsbourger, Le Riche, Carraro 2010), so that workers do not propose the same.

    Args:
        guide: The model.
        space: What is searched.
        length: Epochs of a full trial.
        images: Validation images that accuracies are measured on.
        seed: Of the candidates.
    """

    def __init__(self, guide: Guide, space: Space, *, length: int, images: int, seed: int) -> None:
        self._guide, self._space, self._length, self._images = guide, space, length, images
        self._draws = np.random.default_rng(seed)
        self._distributions = space.distributions()
        self._known: dict[TransferSettings, tuple[Vector, Vector]] = {}
        self._finished: dict[int, Observation] = {}
        self._running: dict[int, Observation] = {}
        self._tried: set[TransferSettings] = set()
        self._settings: dict[tuple[Value, ...], TransferSettings] = {}
        self._recorded = recorded_params(guide, space)
        self._study: optuna.Study | None = None
        self._number = -1

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
        self._study, self._number = study, trial.number

    def choose(self, candidates: Sequence[Mapping[str, Value]]) -> int:
        """Returns the index of the candidate to run next; see `nbt.search.replay.snap.ChoosesFromPool`."""
        seen = self._half(len(candidates))
        settings = [self._settings_of(candidates[i]) for i in seen]
        return seen[self._choose(settings, self._observations(), kept=True)]

    def _choose(self, settings: Sequence[TransferSettings], observations: Sequence[Observation], *, kept: bool) -> int:
        """Returns the index of the best settings; what is known of those that come again is kept."""
        self._forget()
        model, best = self._model(observations)
        # Twice the same is no news: workers that run at once would share a recorded one, and what failed fails again.
        news = [i for i, one in enumerate(settings) if one not in self._tried] or list(range(len(settings)))
        settings = [settings[i] for i in news]
        if model is None:
            return news[int(np.argmax(self._guide.expectation(settings)))]
        mean, spread = model.predict(settings, *(self._describe(settings) if kept else ()))
        return news[int(np.argmax(expected_improvement(mean, spread, best)))]

    def _half(self, count: int) -> list[int]:
        """Returns the numbers of a random half of so many candidates: searches with different seeds are to differ."""
        chosen = self._draws.choice(count, size=max(1, int(np.ceil(count / 2))), replace=False)
        return list(chosen.tolist())

    def _model(self, observations: Sequence[Observation]) -> tuple[Conditioned | None, float]:
        """Returns the model given all trials, and its greatest mean at those that have been judged."""
        judged = [one for one in observations if one.merit is not None]
        if not judged:
            return None, 0.0
        tried = [one.settings for one in judged]
        opinions, points = self._describe(tried)
        model = condition(self._guide, judged, opinions, points)
        running = [one.settings for one in observations if one.merit is None]
        if running:
            more_opinions, more_points = self._describe(running)
            means = model.mean(running, more_opinions, more_points)
            believed = [Observation(s, float(m), 0.0) for s, m in zip(running, means, strict=True)]
            described = np.concatenate([opinions, more_opinions], axis=1), np.concatenate([points, more_points])
            model = condition(self._guide, [*judged, *believed], *described)
        return model, float(model.mean(tried, opinions, points).max())

    def _observations(self) -> list[Observation]:
        """Returns what is known of every trial but the one that is being asked for."""
        assert self._study is not None
        found = []
        for trial in self._study.get_trials(deepcopy=False):
            known = self._finished.get(trial.number)
            if known is not None:
                found.append(known)
                continue
            if trial.number == self._number:
                continue
            if trial.number in self._running and not trial.state.is_finished():
                found.append(self._running[trial.number])
                continue
            record = read_trial(trial)
            if record is None:
                continue
            self._tried.add(record.settings)
            observation = observe(record, self._images)
            if observation is None:
                continue
            found.append(observation)
            (self._finished if trial.state.is_finished() else self._running)[trial.number] = observation
        return _most_telling(found)

    def _candidates(self, observations: Sequence[Observation]) -> list[dict[str, Value]]:
        """Returns parameters of random settings, of neighbours of the best trials, and of half of the recorded ones."""
        drawn = draw_many(self._space, self._draws, _RANDOM)
        best = sorted((one for one in observations if one.merit is not None), key=lambda one: -(one.merit or 0.0))[:5]
        good = [self._space.params(one.settings) for one in best]
        fresh = draw_many(self._space, self._draws, _LOCAL if good else 0)
        local = [_mutate(self._space, good[i % len(good)], one, self._draws) for i, one in enumerate(fresh)]
        recorded = [self._recorded[i] for i in self._half(len(self._recorded))] if self._recorded else []
        return [*drawn, *local, *recorded]

    def _forget(self) -> None:
        """Empties what is kept of settings before it grows without bound: a live search sees new ones every time."""
        if max(len(self._settings), len(self._known)) > _REMEMBERED:
            self._settings.clear()
            self._known.clear()

    def _settings_of(self, params: Mapping[str, Value]) -> TransferSettings:
        key = tuple(params[name] for name in self._space.parameters)
        if key not in self._settings:
            self._settings[key] = self._space.settings(params, self._length)
        return self._settings[key]

    def _describe(self, settings: Sequence[TransferSettings]) -> tuple[Vector, Vector]:
        """Returns opinions and points of settings, each computed once."""
        new = [one for one in dict.fromkeys(settings) if one not in self._known]
        if new:
            points = encode(new)
            opinions = self._guide.opinions(new, points)
            self._known |= {one: (opinions[:, i], points[i]) for i, one in enumerate(new)}
        known = [self._known[one] for one in settings]
        return np.stack([one[0] for one in known], axis=1), np.stack([one[1] for one in known])


def recommend(guide: Guide, space: Space) -> TransferSettings:
    """Returns the settings that a guide expects to be best before any trial, the anchors aside; always the same.

    The best of random and of recorded settings are moved about until nothing near them is expected to be better.
    """
    draws = np.random.default_rng(derive_seed(0, "recommendation"))
    length = guide.target.epochs
    params = [*(draw_params(space, draws) for _ in range(_FIRST_RANDOM)), *recorded_params(guide, space)]
    without = [settings for _, settings in anchors(length)]
    for _ in range(_ROUNDS):
        settings = [space.settings(one, length) for one in params]
        best = guide.recommend(settings, without=without)
        start = params[settings.index(best)]
        params = [start, *(_mutate(space, start, draw_params(space, draws), draws) for _ in range(_FIRST_LOCAL))]
    return space.settings(_rounded(space, start), length)


def _rounded(space: Space, params: Mapping[str, Value]) -> dict[str, Value]:
    """Returns parameters with three digits, for people; nothing is known to more."""
    found: dict[str, Value] = {}
    for dimension in space.dimensions:
        for name in dimension.parameters:
            value = params[name]
            if isinstance(value, float) and dimension.kind == "float":
                low, high = dimension.bounds()
                value = min(max(float(f"{value:.3g}"), low), high)
            found[name] = value
    return found


def recorded_params(guide: Guide, space: Space) -> list[dict[str, Value]]:
    """Returns parameters of the best recorded settings that a space can express."""
    found = [one.replace(epochs=guide.target.epochs) for model in guide.experience for one in model.best]
    return [space.params(one) for one in found if space.expresses(one)]


def observe(record: TrialRecord, images: int) -> Observation | None:
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
    noise = float(merit_variance(accuracy, images))
    if record.state == "complete":
        return Observation(record.settings, float(merit(accuracy, images)), noise)
    forecast = record.forecast
    if not forecast:
        return Observation(record.settings, float(merit(accuracy, images)) + _STOPPED_GAIN, noise + _STOPPED_VARIANCE)
    low, high = (float(merit(forecast[name], images)) for name in ("low", "high"))
    # 80 % of a normal distribution lie within 1.28 standard deviations.
    spread = max((high - low) / 2.56, 0.1)
    return Observation(record.settings, float(merit(forecast["mean"], images)), noise + spread**2)


def condition(
    guide: Guide, observations: Sequence[Observation], opinions: Vector | None = None, points: Vector | None = None
) -> Conditioned:
    """Returns the guide's model given what is known of trials; merits far below the best count alike.

    Args:
        guide: Of the study.
        observations: At least one, each with a merit.
        opinions: `Guide.opinions` of their settings, where they are known already.
        points: `encode` of their settings, likewise.
    """
    merits = np.array([one.merit for one in observations], dtype=float)
    variance = np.array([one.variance for one in observations])
    floored = np.maximum(merits, merits.max() - FLOOR)
    return guide.condition([one.settings for one in observations], floored, variance, opinions, points)


def expected_improvement(mean: Vector, spread: Vector, best: float) -> Vector:
    """Returns the expected improvement over `best` of normal variables."""
    from scipy.special import ndtr

    gap = (mean - best) / spread
    density = np.exp(-0.5 * gap**2) / np.sqrt(2 * np.pi)
    return np.asarray(spread * (gap * ndtr(gap) + density))


def _most_telling(observations: list[Observation]) -> list[Observation]:
    if len(observations) <= _MOST:
        return observations
    order = sorted(range(len(observations)), key=lambda i: -(observations[i].merit or 0.0))
    kept = {*order[: _MOST // 2], *range(len(observations) - _MOST // 2, len(observations))}
    return [observations[i] for i in sorted(kept)]


def _mutate(
    space: Space, params: Mapping[str, Value], fresh: Mapping[str, Value], draws: np.random.Generator
) -> dict[str, Value]:
    """Returns parameters of which a few are those of `fresh`, or moved a little towards it where they are numbers."""
    changed: dict[str, Value] = dict(params)
    count = 1 + int(draws.integers(4))
    total = len(space.parameters)
    names = {space.parameters[i] for i in draws.choice(total, size=min(count, total), replace=False)}
    for dimension in space.dimensions:
        for name in dimension.parameters:
            if name in names:
                near = dimension.kind == "float" and draws.random() < 0.7
                changed[name] = dimension.between(params[name], fresh[name], 0.25) if near else fresh[name]
    return changed
