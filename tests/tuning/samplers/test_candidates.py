"""Candidates: the best recorded settings, and mutations."""

from __future__ import annotations

import numpy as np

from nbt.tuning.samplers.candidates import best_recorded_params
from nbt.tuning.space.sampling import mutate, neutral_params, sample_params
from nbt.tuning.space.space import Space
from tests.tuning.synthetic import LENGTH, SPACE, transferred_priors, trees_target


class TestRecordedCandidates:
    def test_the_best_settings_of_every_task_are_candidates(self) -> None:
        full_surrogate = transferred_priors().surrogate(trees_target(), SPACE)
        candidates = best_recorded_params(full_surrogate, SPACE)
        assert full_surrogate.experience is not None and len(candidates) > 24
        assert {SPACE.settings(params, LENGTH) for params in candidates} == set(full_surrogate.experience.best)

    def test_settings_outside_the_space_are_no_candidates(self) -> None:
        binary = Space.load("binary")
        for params in best_recorded_params(transferred_priors().surrogate(trees_target(), binary), binary):
            assert binary.settings(params, LENGTH)


def test_mutations_change_few_parameters_and_stay_inside() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        start = sample_params(SPACE, rng)
        moved = mutate(SPACE, start, sample_params(SPACE, rng), rng)
        assert set(moved) == set(start)
        assert sum(moved[name] != start[name] for name in start) <= 4
        assert SPACE.settings(moved, LENGTH)
    ends = {name: SPACE.distributions()[name].high for name in ("transfer_depth", "head_lr")}  # type: ignore[attr-defined]
    start = {**sample_params(SPACE, rng), **ends}
    assert all(SPACE.settings(mutate(SPACE, start, sample_params(SPACE, rng), rng), LENGTH) for _ in range(200))


def test_neutral_parameters_are_those_of_the_default_settings() -> None:
    params = neutral_params(SPACE.dimensions)
    assert params.keys() == set(SPACE.parameters)
    assert SPACE.settings(params, LENGTH) == SPACE.default(LENGTH)
