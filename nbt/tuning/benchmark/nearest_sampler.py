"""NearestRecordedSampler: what a sampler proposes becomes a recorded setting, so that the controller is told what was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from nbt.tuning.benchmark.tabular import CandidatePool
from nbt.tuning.space.dimension import ParamValue


@runtime_checkable
class PoolSampler(Protocol):
    """A sampler that can also pick one of given settings.

    Optuna calls its `before_trial(study, trial)` first, with the study as it is then.
    """

    def choose(self, candidates: Sequence[Mapping[str, ParamValue]]) -> int:
        """Returns the index of the candidate to run next.

        Args:
            candidates: Parameters of the space, one mapping a candidate; at least one.
        """
        ...


class NearestRecordedSampler(optuna.samplers.BaseSampler):
    """Gives the nearest recorded setting, not used yet in this replay, for what another sampler proposes.

    The distance is that of `nbt.tuning.benchmark.tabular.coordinates`, between repaired settings. A sampler that can
    choose from a pool (`PoolSampler`) is shown the unused settings themselves; its distances are 0.

    Args:
        inner: Who proposes.
        pool: The recorded settings; it must not be empty when a trial is asked for.
    """

    def __init__(self, inner: optuna.samplers.BaseSampler, pool: CandidatePool) -> None:
        self._inner, self._pool = inner, pool
        self._distributions = pool.benchmark.space.distributions()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the whole space: a recorded setting is drawn in one go."""
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the parameters of a recorded setting, which is used from now on."""
        benchmark = self._pool.benchmark
        if isinstance(self._inner, PoolSampler):
            unused = self._pool.unused
            index, distance = unused[self._inner.choose([benchmark.settings[i].params for i in unused])], 0.0
        else:
            proposed = benchmark.space.settings(self._propose(study, trial), benchmark.length)
            index, distance = self._pool.nearest(proposed)
        self._pool.use(index, distance)
        return dict(benchmark.settings[index].params)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Is asked only for what the space does not have."""
        raise KeyError(param_name)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Passes it on."""
        self._inner.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Passes it on."""
        self._inner.after_trial(study, trial, state, values)

    def _propose(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """Returns what the inner sampler proposes, by the same calls that optuna makes."""
        joint = self._inner.infer_relative_search_space(study, trial)
        params = self._inner.sample_relative(study, trial, joint)
        return {
            name: params[name] if name in params else self._inner.sample_independent(study, trial, name, distribution)
            for name, distribution in self._distributions.items()
        }
