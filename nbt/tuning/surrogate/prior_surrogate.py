"""PriorSurrogate: what profile, rules and recorded tasks expect of settings, and how much of it a search's trials bear out.

The model of a study is one Gaussian process. Its mean is what is expected beforehand; beside the process stands one
function for each source of that expectation (each heuristic that fired, each recorded task), whose weight is uncertain
too. So every trial moves the weights as well as the process: a source that the trials contradict loses its weight, one
that they confirm gains, and with growing evidence the expectation counts for less and less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbt.seeds import derive_seed
from nbt.settings import TransferSettings
from nbt.tuning.priors.profile_priors import activate_priors
from nbt.tuning.space.encoding import encode
from nbt.tuning.space.sampling import sample_params
from nbt.tuning.space.space import Space
from nbt.tuning.surrogate.gaussian_process import GaussianProcess, Kernel
from nbt.tuning.surrogate.kernel import default_kernel
from nbt.tuning.surrogate.task_model import TaskModel, target_from_header, task_similarity
from nbt.tuning.target import Target

FloatArray = NDArray[np.float64]

_NUM_REFERENCE_SETTINGS = 256
# A table of a task like this one counts for half of the expectation, rules for the rest; more tables for more.
_PRIORS_WEIGHT = 1.0
_TABLE_WEIGHT_STD = 0.4
_PRIOR_WEIGHT_STD = 0.7
# What is left to the process once rules and tables have spoken, and without them.
_AMPLITUDE_WITH_TABLES, _AMPLITUDE_WITHOUT_TABLES = 0.5, 1.0
_NOISE_VARIANCE = 0.05
_LENGTH_SCALE_FACTOR = 0.6
_MIN_TRIALS_TO_FIT_KERNEL = 10


@dataclass(frozen=True, kw_only=True)
class PriorSource:
    """One thing that the expectation comes from.

    Attributes:
        name: Of the heuristic, or "recorded: TASK".
        words: What it proposes.
        origin: Where the heuristic is from, or how alike the recorded task is.
        mean: Expected weight, in units of merit a standard deviation of the source over random settings.
        spread: Standard deviation of the weight.
    """

    name: str
    words: str
    origin: str
    mean: float
    spread: float


class PriorSurrogate:
    """See the module.

    Args:
        target: What is known of the task.
        space: What is searched.
        experience: Models of recorded tasks.
        heuristics: Whether the rules speak.
        prior_scale: Factor on all that is expected beforehand; 1, but for studies of what a wrong expectation costs.
    """

    def __init__(
        self,
        target: Target,
        space: Space,
        experience: Sequence[TaskModel] = (),
        *,
        heuristics: bool = True,
        prior_scale: float = 1.0,
    ) -> None:
        self.target, self.space, self.experience = target, space, tuple(experience)
        self.activations = (
            activate_priors(target, [*(d.name for d in space.dimensions), *space.same_as]) if heuristics else []
        )
        self._active = [(one, one.suggestion) for one in self.activations if one.suggestion is not None]
        alike = np.array([task_similarity(target, target_from_header(model.header)) for model in self.experience])
        self._tables_share = (
            float(alike.sum() / (alike.sum() + _PRIORS_WEIGHT)) if self._active else float(bool(len(alike)))
        )
        self._table_weights = self._tables_share * alike / alike.sum() if alike.sum() > 0 else alike
        self._similarities = alike
        self._prior_scale = prior_scale

    @cached_property
    def sources(self) -> tuple[PriorSource, ...]:
        """What the expectation comes from: the heuristics that fired, then the recorded tasks."""
        rules = [
            PriorSource(
                name=activation.prior.name,
                words=suggestion.words,
                origin=activation.prior.source,
                mean=self._prior_scale * (1 - self._tables_share) * activation.prior.strength,
                spread=_PRIOR_WEIGHT_STD * activation.prior.strength,
            )
            for activation, suggestion in self._active
        ]
        tables = [
            PriorSource(
                name=f"recorded: {model.header.name}",
                words=f"what {model.header.name} was trained best with",
                origin=f"similarity of the tasks {alike:.2f}",
                mean=self._prior_scale * float(share),
                spread=_TABLE_WEIGHT_STD,
            )
            for model, alike, share in zip(self.experience, self._similarities, self._table_weights, strict=True)
        ]
        return (*rules, *tables)

    @property
    def kernel(self) -> Kernel:
        """The kernel of what no source explains."""
        if self.experience:
            lengths = Kernel.mean([model.process.kernel for model in self.experience]).lengths
            return Kernel(lengths, _AMPLITUDE_WITH_TABLES, _NOISE_VARIANCE)
        return Kernel(_LENGTH_SCALE_FACTOR * default_kernel().lengths, _AMPLITUDE_WITHOUT_TABLES, _NOISE_VARIANCE)

    def source_scores(self, settings: Sequence[TransferSettings], points: FloatArray | None = None) -> FloatArray:
        """Returns what each source says of settings, (sources, settings), in its own standard deviations.

        Args:
            settings: To be judged.
            points: `encode` of them, where it is known already.
        """
        if not self.sources:
            return np.zeros((0, len(settings)))
        centres, scales = self._normalisation
        return np.asarray(np.clip((self._raw_scores(settings, points) - centres) / scales, -3.0, 3.0))

    def prior_mean(self, settings: Sequence[TransferSettings]) -> FloatArray:
        """Returns the merit that is expected of settings before any trial, (settings,), from that of a random one."""
        return np.asarray(self._weight_means @ self.source_scores(settings))

    def condition(
        self,
        settings: Sequence[TransferSettings],
        logit_scores: FloatArray,
        variance: FloatArray,
        source_scores: FloatArray | None = None,
        points: FloatArray | None = None,
    ) -> ConditionedSurrogate:
        """Returns the model given trials.

        Args:
            settings: Of the trials, at least one.
            merits: What they reached, (trials,).
            variance: Of each, (trials,).
            opinions: Of the trials, where they are known already.
            points: `encode` of them, likewise.
        """
        points = encode(settings) if points is None else points
        source_scores = self.source_scores(settings, points) if source_scores is None else source_scores
        level = float(np.mean(logit_scores))
        rest, basis = (
            logit_scores - level - self._weight_means @ source_scores,
            self._weight_stds[:, None] * source_scores,
        )
        process = GaussianProcess.given(
            self._fitted_kernel(points, rest, variance, basis), points, rest, noise=variance, basis=basis
        )
        return ConditionedSurrogate(self, process, level)

    def _fitted_kernel(self, points: FloatArray, values: FloatArray, variance: FloatArray, basis: FloatArray) -> Kernel:
        """Returns the kernel for a study's trials: without recorded tasks, which show one, it is fitted to them."""
        if self.experience or len(values) < _MIN_TRIALS_TO_FIT_KERNEL:
            return self.kernel
        return GaussianProcess.fit(points, values, noise=variance, basis=basis, around=self.kernel).kernel

    def recommend(
        self, candidates: Sequence[TransferSettings], without: Sequence[TransferSettings] = ()
    ) -> TransferSettings:
        """Returns the settings that are expected to be best; the first of equals.

        Args:
            candidates: To choose from.
            without: Settings that run anyway; they are chosen where there are no others.
        """
        left = [one for one in candidates if one not in without] or list(candidates)
        return left[int(np.argmax(self.prior_mean(left)))]

    def explain(self) -> dict[str, Any]:
        """Returns what fired, what did not, and what was known, in JSON types."""
        return {
            "sources": [dict(vars(source)) for source in self.sources],
            "silent": [
                {"name": one.prior.name, "reason": one.reason} for one in self.activations if one.suggestion is None
            ],
            "tables": [model.header.name for model in self.experience],
        }

    @cached_property
    def _weight_means(self) -> FloatArray:
        return np.array([source.mean for source in self.sources])

    @cached_property
    def _weight_stds(self) -> FloatArray:
        return np.array([source.spread for source in self.sources])

    @cached_property
    def _normalisation(self) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of each source over random settings, as columns."""
        rng = np.random.default_rng(derive_seed(0, "reference settings"))
        length = self.target.epochs
        raw = self._raw_scores(
            [self.space.settings(sample_params(self.space, rng), length) for _ in range(_NUM_REFERENCE_SETTINGS)]
        )
        scales = raw.std(axis=1, keepdims=True)
        # Tables are in units of merit already, and a rule that says the same of everything says nothing.
        rules = len(self._active)
        scales[rules:] = 1.0
        return raw.mean(axis=1, keepdims=True), np.where(scales > 1e-6, scales, 1e6)

    def _raw_scores(self, settings: Sequence[TransferSettings], points: FloatArray | None = None) -> FloatArray:
        rules = [[suggestion.log_density(one) for one in settings] for _, suggestion in self._active]
        points = encode(settings) if points is None else points
        return np.array([*rules, *(model.predict(points) for model in self.experience)])


@dataclass(frozen=True, eq=False)
class ConditionedSurrogate:
    """A guide's model given the trials of a study.

    Attributes:
        guide: Whose.
        process: Of the merits beside level and expectation.
        level: Mean merit of the trials.
    """

    surrogate: PriorSurrogate
    process: GaussianProcess
    level: float

    def predict(
        self,
        settings: Sequence[TransferSettings],
        source_scores: FloatArray | None = None,
        points: FloatArray | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Returns mean and standard deviation of the merit of settings, (settings,) each.

        Args:
            settings: To be judged.
            opinions: `PriorSurrogate.opinions` of them, where it is known already.
            points: `encode` of them, likewise.
        """
        points = encode(settings) if points is None else points
        source_scores = self.surrogate.source_scores(settings, points) if source_scores is None else source_scores
        mean, variance = self.process.predict(points, self.surrogate._weight_stds[:, None] * source_scores)
        return self.level + self.surrogate._weight_means @ source_scores + mean, np.sqrt(variance)

    def mean(
        self,
        settings: Sequence[TransferSettings],
        source_scores: FloatArray | None = None,
        points: FloatArray | None = None,
    ) -> FloatArray:
        """Returns the mean alone; see `predict`."""
        points = encode(settings) if points is None else points
        source_scores = self.surrogate.source_scores(settings, points) if source_scores is None else source_scores
        mean = self.process.mean(points, self.surrogate._weight_stds[:, None] * source_scores)
        return np.asarray(self.level + self.surrogate._weight_means @ source_scores + mean)

    def weights(self) -> list[dict[str, float]]:
        """Returns the weight of each source given the trials: its mean as `after`, its spread as `after_spread`."""
        mean, spread = self.process.basis_weights
        return [
            {
                "after": source.mean + source.spread * float(m),
                "after_spread": source.spread * float(s),
            }
            for source, m, s in zip(self.surrogate.sources, mean, spread, strict=True)
        ]
