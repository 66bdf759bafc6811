"""Sampler adapter that restricts another sampler's proposals to the recorded settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from nbt.tuning.space.dimension import ParamValue


class SettingPool(Protocol):
    """The recorded settings that a replay has not used yet."""

    @property
    def unused(self) -> list[int]:
        """Indices of the unused settings."""

    def distributions(self) -> dict[str, BaseDistribution]:
        """Returns the distribution of every parameter."""

    def params(self, setting: int) -> Mapping[str, Any]:
        """Returns the parameters of a setting."""

    def nearest_to(self, params: dict[str, Any]) -> tuple[int, float]:
        """Returns the index of the nearest unused setting and its distance."""

    def mark_used(self, setting: int, distance: float | None = None) -> None:
        """Marks a setting as used and notes its distance from the proposal."""


@runtime_checkable
class PoolSampler(Protocol):
    """A sampler that can also choose among given candidates.

    `before_trial(study, trial)` is called before `choose`.
    """

    def choose(self, candidates: Sequence[Mapping[str, ParamValue]]) -> int:
        """Returns the index of the candidate to run next.

        Args:
            candidates: Parameters of the space, one mapping per candidate; at least one.
        """
        ...


class NearestRecordedSampler(optuna.samplers.BaseSampler):
    """Replaces each proposal of another sampler by the nearest recorded setting that the replay has not used yet.

    A `PoolSampler` chooses among the unused settings directly, at distance 0.

    Args:
        inner: Sampler that proposes settings.
        pool: Pool of recorded settings; it must not be empty when a trial is sampled.
    """

    def __init__(self, inner: optuna.samplers.BaseSampler, pool: SettingPool) -> None:
        self._inner, self._pool = inner, pool
        self._distributions = pool.distributions()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the distributions of the whole space: all parameters are sampled jointly."""
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the parameters of a recorded setting and marks it as used."""
        if isinstance(self._inner, PoolSampler):
            unused = self._pool.unused
            index, distance = unused[self._inner.choose([self._pool.params(i) for i in unused])], 0.0
        else:
            index, distance = self._pool.nearest_to(self._propose(study, trial))
        self._pool.mark_used(index, distance)
        return dict(self._pool.params(index))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Raises `KeyError`: Optuna calls it only for parameters outside the space."""
        raise KeyError(param_name)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Calls the inner sampler's method."""
        self._inner.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Calls the inner sampler's method."""
        self._inner.after_trial(study, trial, state, values)

    def _propose(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """Returns the inner sampler's proposal, with the same sequence of calls as Optuna makes."""
        joint = self._inner.infer_relative_search_space(study, trial)
        params = self._inner.sample_relative(study, trial, joint)
        return {
            name: params[name] if name in params else self._inner.sample_independent(study, trial, name, distribution)
            for name, distribution in self._distributions.items()
        }
