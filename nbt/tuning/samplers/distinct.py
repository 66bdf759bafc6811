"""Streams of tasks as what a search is for: which methods run first, and who proposes the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution

from nbt.seeds import derive_seed
from nbt.settings import TransferSettings, repair
from nbt.settings.continual import METHODS, method_overrides
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE, default_recipe
from nbt.tuning.space.sampling import sample_params
from nbt.tuning.space.space import Space

_MAX_TRIES = 20
# No decay at all is beyond the space's logarithmic range; the least there is changes nothing.
_MIN_DECAY = 1e-6


class DistinctSampler(optuna.samplers.TPESampler):
    """TPE that proposes no settings twice.

    Many parameters of a stream's space stand for the same settings once these are repaired: of a probe, for one, none
    but its method matters. When it leads, plain TPE would propose it again and again.

    Args:
        space: What is searched.
        length: Epochs of a full trial.
        seed: Of the proposals.
    """

    def __init__(self, space: Space, *, length: int, seed: int) -> None:
        super().__init__(multivariate=True, constant_liar=True, seed=seed)
        self._space, self._length = space, length
        self._fallback_rng = np.random.default_rng(derive_seed(seed, "distinct"))

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns the whole space: every trial has every parameter."""
        return self._space.distributions()

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns what TPE draws of settings that no trial has had, else a random draw."""
        names = set(self._space.parameters)
        seen = {self._settings(t.params) for t in study.get_trials(deepcopy=False) if set(t.params) == names}
        for _ in range(_MAX_TRIES):
            params = super().sample_relative(study, trial, search_space) or sample_params(
                self._space, self._fallback_rng
            )
            if self._settings(params) not in seen:
                return params
        return sample_params(self._space, self._fallback_rng)

    def _settings(self, params: Mapping[str, Any]) -> TransferSettings:
        return self._space.settings(params, self._length)


def stream_baseline_recipes(epochs: int, scenario: str) -> list[tuple[str, TransferSettings]]:
    """Returns the methods that a user would otherwise try on a stream of tasks, naive fine-tuning first.

    Joint training is left out: it is what the others would like to reach.

    Args:
        epochs: Length of a full trial, all tasks together.
        scenario: "data", "task" or "class".
    """
    default = default_recipe(epochs)
    recipes = [(DEFAULT_RECIPE, default)]
    for name in METHODS:
        if name not in ("finetune", "joint"):
            settings = default.replace(**method_overrides(name, scenario))
            recipes.append((name, repair(settings.replace(decay_strength=max(settings.decay_strength, _MIN_DECAY)))))
    return recipes
