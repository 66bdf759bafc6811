"""Observations of trials, and their number in the model."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.surrogate import observation as module
from nbt.tuning.surrogate.logit_score import MAX_GAP_TO_BEST, logit_score, logit_score_variance
from nbt.tuning.surrogate.observation import (
    Observation,
    ObservationLog,
    condition_on_trials,
    limit_observations,
    to_observation,
)
from tests.tuning.synthetic import IMAGES, LENGTH, SPACE, TREES, draw, record, transferred_priors, trees_target


def pruned_observation(number: int, settings: TransferSettings, accuracy: float, **forecast: Any) -> Observation:
    rows = (EpochResult(1, 1.0, 1.0, accuracy, 1.0),)
    observation = to_observation(record(number, settings, rows, state="pruned", forecast=forecast or None), IMAGES)
    assert observation is not None
    return observation


class TestObservation:
    BASE = TransferSettings(epochs=LENGTH)

    def test_a_complete_trial_has_its_score(self) -> None:
        last = 0.6
        curve = tuple(EpochResult(epoch, 1.0, 1.0, 0.7, 1.0) for epoch in range(1, LENGTH))
        observation = to_observation(record(0, self.BASE, (*curve, EpochResult(LENGTH, 1.0, 1.0, last, 1.0))), IMAGES)
        assert observation is not None and observation.settings == self.BASE
        assert observation.logit_score == pytest.approx(float(logit_score(last, IMAGES)))
        assert observation.variance == pytest.approx(float(logit_score_variance(last, IMAGES)))

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


def test_scores_far_below_the_best_are_floored() -> None:
    full_surrogate = transferred_priors().surrogate(trees_target(), SPACE)
    settings, level = draw(6, seed=6), float(logit_score(0.9, IMAGES))
    bad, worse = (
        [Observation(recipe, level - (drop if i else 0.0), 0.05) for i, recipe in enumerate(settings)]
        for drop in (MAX_GAP_TO_BEST, 10 * MAX_GAP_TO_BEST)
    )
    means = [condition_on_trials(full_surrogate, trials).predict(draw(20))[0] for trials in (bad, worse)]
    assert means[0] == pytest.approx(means[1])


class TestManyTrials:
    def test_the_best_and_the_newest_are_kept(self) -> None:
        trials = [Observation(recipe, float(i % 97), 0.1) for i, recipe in enumerate(draw(400, seed=8))]
        kept = limit_observations(trials)
        assert len(kept) <= module._MAX_MODELLED_TRIALS == 300
        assert kept[-150:] == trials[-150:], "in order"
        best = sorted(trials, key=lambda trial: -(trial.logit_score or 0.0))[:150]
        assert all(trial in kept for trial in best)
        assert limit_observations(trials[:300]) == trials[:300]

    def test_running_trials_are_kept(self) -> None:
        trials = [Observation(recipe, 5.0, 0.1) for recipe in draw(400, seed=8)]
        trials[-3:] = [dataclasses.replace(trial, logit_score=None) for trial in trials[-3:]]
        assert limit_observations(trials)[-3:] == trials[-3:]


class TestObservationLog:
    @pytest.mark.parametrize("running", [0, 3, 40, 400])
    def test_it_chooses_what_the_limit_of_all_trials_chooses(
        self, running: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_MAX_MODELLED_TRIALS", 30)
        recipe, rng = TransferSettings(), random.Random(running)
        log = ObservationLog()
        finished: dict[int, Observation] = {}
        open_numbers = list(range(running))
        for number in range(running, 300 + running):
            open_numbers.append(number)
            done = open_numbers.pop(rng.randrange(len(open_numbers)))  # trials end in any order
            # Few distinct scores, so that there are ties, below and above 0, the score of a running trial.
            finished[done] = Observation(recipe, float(rng.randrange(-3, 4)), rng.random())
            log.add(done, finished[done])
            now = {number: Observation(recipe, None, 0.0) for number in open_numbers}
            in_order = [observation for _, observation in sorted((finished | now).items())]
            assert log.limited(now) == limit_observations(in_order)
        assert len(log._finished) <= 2 * 30

    def test_a_small_study_is_complete(self) -> None:
        log, observations = ObservationLog(), [Observation(recipe, 1.0, 0.1) for recipe in draw(30, seed=8)]
        for number in reversed(range(30)):
            log.add(number, observations[number])
        assert log.limited({}) == observations
