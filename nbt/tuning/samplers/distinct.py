"""Search on streams of tasks: the baseline recipes of continual learning and a sampler without repetitions."""

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

_MAX_PROPOSALS = 20
# The logarithmic range of the space excludes 0; its lower end has no effect on training.
_MIN_DECAY = 1e-6


class DistinctSampler(optuna.samplers.TPESampler):
    """TPE sampler that avoids the settings of earlier trials.

    In the space of a stream, many parameters map to the same repaired settings; with the method "probe", for example,
    several dimensions have no effect. Plain TPE would propose the best settings repeatedly.

    Args:
        space: Search space.
        length: Epochs of a full trial.
        seed: Seed of the proposals.
    """

    def __init__(self, space: Space, *, length: int, seed: int) -> None:
        super().__init__(multivariate=True, constant_liar=True, seed=seed)
        self._space, self._length = space, length
        self._fallback_rng = np.random.default_rng(derive_seed(seed, "distinct"))

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns the distributions of the whole space: every trial has every parameter."""
        return self._space.distributions()

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns TPE's first proposal with new settings, or random parameters after `_MAX_PROPOSALS` proposals."""
        names = set(self._space.parameters)
        seen = {
            self._settings(earlier.params)
            for earlier in study.get_trials(deepcopy=False)
            if set(earlier.params) == names
        }
        for _ in range(_MAX_PROPOSALS):
            params = super().sample_relative(study, trial, search_space) or sample_params(
                self._space, self._fallback_rng
            )
            if self._settings(params) not in seen:
                return params
        return sample_params(self._space, self._fallback_rng)

    def _settings(self, params: Mapping[str, Any]) -> TransferSettings:
        return self._space.settings(params, self._length)


def stream_baseline_recipes(epochs: int, scenario: str) -> list[tuple[str, TransferSettings]]:
    """Returns the baseline recipes of a stream of tasks, by name: one per continual method, naive fine-tuning first.

    Joint training is left out, because it is an upper bound and not a continual method.

    Args:
        epochs: Epochs of a full trial, summed over the tasks.
        scenario: "data", "task" or "class".
    """
    default = default_recipe(epochs)
    recipes = [(DEFAULT_RECIPE, default)]
    for name in METHODS:
        if name not in ("finetune", "joint"):
            settings = default.replace(**method_overrides(name, scenario))
            recipes.append((name, repair(settings.replace(decay_strength=max(settings.decay_strength, _MIN_DECAY)))))
    return recipes
