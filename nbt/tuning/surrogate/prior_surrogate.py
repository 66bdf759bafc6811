"""The prior surrogate: a Gaussian process with priors and recorded tasks in its mean.

The mean of the process before any trial is a weighted sum of sources, one per active prior and one for all recorded
tasks. The weights of the sources are uncertain and are inferred from the trials together with the process: a source
that the trials contradict loses weight and one that they confirm gains weight. The influence of the sources decreases
with the number of trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbt.seeds import derive_seed
from nbt.settings import TransferSettings
from nbt.tuning.priors.activation import activate, activate_priors
from nbt.tuning.priors.prior import Prior, PriorSuggestion
from nbt.tuning.priors.statement import Quantity, Statement, at_least
from nbt.tuning.space.encoding import encode
from nbt.tuning.space.sampling import sample_params
from nbt.tuning.space.space import Space
from nbt.tuning.surrogate.experience_model import ExperienceModel, TaskExperience
from nbt.tuning.surrogate.gaussian_process import GaussianProcess, Kernel
from nbt.tuning.surrogate.kernel import default_kernel
from nbt.tuning.target import Target

FloatArray = NDArray[np.float64]

_NUM_REFERENCE_SETTINGS = 256
RECORDED_TASKS = "recorded tasks"
_EXPERIENCE_WEIGHT, _EXPERIENCE_WEIGHT_STD = 1.0, 0.4
_PRIOR_WEIGHT_STD = 0.7
# Variance of the process, which models what the sources do not explain: with many recorded tasks of the target's
# architecture, and what is added without any.
_AMPLITUDE, _ADDED_AMPLITUDE = 0.5, 0.5
_NUM_NAMED_TASKS = 3
_NOISE_VARIANCE = 0.05
_LENGTH_SCALE_FACTOR = 0.6
_MIN_TRIALS_TO_FIT_KERNEL = 10


@dataclass(frozen=True, kw_only=True)
class PriorSource:
    """One source of the prior mean: an active prior or the recorded tasks.

    Attributes:
        name: Name of the prior, or `RECORDED_TASKS`.
        words: Suggestion of the source, as a clause for reports.
        origin: Reference of the prior, or the most similar recorded tasks.
        mean: Expected weight, in units of the logit score: per standard deviation of a prior over random settings, per
            predicted logit score of recorded tasks.
        spread: Standard deviation of the weight.
    """

    name: str
    words: str
    origin: str
    mean: float
    spread: float


class PriorSurrogate:
    """Surrogate model of the logit score with priors and recorded tasks in its mean; see the module's documentation.

    Args:
        target: Target with the facts and the profile of the task.
        space: Search space.
        experience: Model of the recorded tasks; None without any.
        heuristics: Whether the priors are used.
        prior_scale: Factor on the expected weights of all sources; other values than 1 are for studies of the cost of
            wrong priors.
        beliefs: Priors from beliefs of the user. Unlike those of the rules, their weights do not shrink beside recorded
            tasks, because the user may know what no table shows.

    Attributes:
        backbone_costs: Cost of an epoch relative to the reference by the setting `backbone`; empty with one backbone.
    """

    def __init__(
        self,
        target: Target,
        space: Space,
        experience: ExperienceModel | None = None,
        *,
        heuristics: bool = True,
        prior_scale: float = 1.0,
        beliefs: Sequence[Prior] = (),
    ) -> None:
        self.target, self.space, self.experience = target, space, experience
        self._recorded: TaskExperience | None = None if experience is None else experience.for_target(target)
        self.beliefs = tuple(beliefs)
        self.activations = (
            activate_priors(target, [*(d.name for d in space.dimensions), *space.same_as]) if heuristics else []
        )
        n_rules = sum(activation.suggestion is not None for activation in self.activations)
        self.activations += [activate(belief, target) for belief in beliefs]
        self._active = [
            (activation, activation.suggestion) for activation in self.activations if activation.suggestion is not None
        ]
        # Beside tables of its own architecture, which tell more, the rules count less.
        self._rules_share = 1.0 / (1.0 + (self._recorded.own_architecture if self._recorded else 0.0))
        self._shares = [self._rules_share] * n_rules + [1.0] * (len(self._active) - n_rules)
        self._prior_scale = prior_scale
        self.backbone_costs: dict[str, float] = {}

    @property
    def targets(self) -> Mapping[str, Target]:
        """The target with each backbone, by the setting `backbone`, that of the reference, "", first."""
        return {"": self.target}

    @cached_property
    def sources(self) -> tuple[PriorSource, ...]:
        """Sources of the prior mean: the active priors, then the recorded tasks."""
        priors = [
            PriorSource(
                name=activation.prior.name,
                words=suggestion.words,
                origin=activation.prior.source,
                mean=self._prior_scale * share * activation.prior.strength,
                spread=_PRIOR_WEIGHT_STD * share * activation.prior.strength,
            )
            for (activation, suggestion), share in zip(self._active, self._shares, strict=True)
        ]
        if self._recorded is None:
            return tuple(priors)
        recorded = PriorSource(
            name=RECORDED_TASKS,
            words="prefer settings that train well on recorded tasks",
            origin=self.similarity_text,
            mean=self._prior_scale * _EXPERIENCE_WEIGHT,
            spread=_EXPERIENCE_WEIGHT_STD,
        )
        return (*priors, recorded)

    @property
    def similarity_text(self) -> str:
        """The most similar recorded tasks with their similarity; "" without any recorded task."""
        if self._recorded is None:
            return ""
        ranked = sorted(self._recorded.similarities.items(), key=lambda item: -item[1])[:_NUM_NAMED_TASKS]
        if not ranked:
            return "all tables are of other architectures"
        return "task similarity " + ", ".join(f"{value:.2f} to {name}" for name, value in ranked)

    @property
    def kernel(self) -> Kernel:
        """Kernel of the residual that the sources do not explain."""
        length_scales = _LENGTH_SCALE_FACTOR * default_kernel().length_scales
        if self.space.epochs is not None:
            length_scales = np.r_[length_scales, length_scales[:1]]
        return Kernel(length_scales, _AMPLITUDE + self._rules_share * _ADDED_AMPLITUDE, _NOISE_VARIANCE)

    def source_scores(self, settings: Sequence[TransferSettings], points: FloatArray | None = None) -> FloatArray:
        """Returns the score of each source for settings, (sources, settings), clipped to -3 ... 3.

        Scores of priors are standardised over random settings; scores of recorded tasks are logit scores relative to
        the mean over random settings.

        Args:
            settings: Settings to score.
            points: `encode` of the settings, if already computed.
        """
        if not self.sources:
            return np.zeros((0, len(settings)))
        centres, scales = self._normalisation
        return np.asarray(np.clip((self._raw_scores(settings, points) - centres) / scales, -3.0, 3.0))

    def prior_mean(self, settings: Sequence[TransferSettings]) -> FloatArray:
        """Returns the logit scores expected before any trial, relative to random settings, (settings,)."""
        return np.asarray(self._weight_means @ self.source_scores(settings))

    def condition(
        self,
        settings: Sequence[TransferSettings],
        logit_scores: FloatArray,
        variance: FloatArray,
        source_scores: FloatArray | None = None,
        points: FloatArray | None = None,
    ) -> ConditionedSurrogate:
        """Conditions the model on trials.

        Args:
            settings: Settings of the trials, at least one.
            logit_scores: Logit scores of the trials, (trials,).
            variance: Variances of the logit scores, (trials,).
            source_scores: `source_scores` of the settings, if already computed.
            points: `encode` of the settings, if already computed.
        """
        points = encode(settings) if points is None else points
        source_scores = self.source_scores(settings, points) if source_scores is None else source_scores
        points = self.with_length(settings, points)
        level = float(np.mean(logit_scores))
        residuals = logit_scores - level - self._weight_means @ source_scores
        basis = self._weight_stds[:, None] * source_scores
        kernel = self._fitted_kernel(points, residuals, variance, basis)
        process = GaussianProcess.with_kernel(kernel, points, residuals, noise=variance, basis=basis)
        return ConditionedSurrogate(self, process, level)

    def with_length(self, settings: Sequence[TransferSettings], points: FloatArray) -> FloatArray:
        """Returns the points with a coordinate for the length of the training if the space varies it."""
        if self.space.epochs is None:
            return points
        return np.asarray(np.c_[points, [math.log2(recipe.epochs / self.target.epochs) / 2 for recipe in settings]])

    def _fitted_kernel(self, points: FloatArray, values: FloatArray, variance: FloatArray, basis: FloatArray) -> Kernel:
        """Returns the kernel for a study's trials: fitted to them if there are no recorded tasks but enough trials."""
        if self.experience is not None or len(values) < _MIN_TRIALS_TO_FIT_KERNEL:
            return self.kernel
        return GaussianProcess.fit(points, values, noise=variance, basis=basis, prior_mode=self.kernel).kernel

    def recommend(
        self, candidates: Sequence[TransferSettings], without: Sequence[TransferSettings] = ()
    ) -> TransferSettings:
        """Returns the candidate with the greatest prior mean; the first one if several are equal.

        Args:
            candidates: Settings to choose from, at least one.
            without: Settings to exclude, unless that leaves no candidate.
        """
        remaining = [settings for settings in candidates if settings not in without] or list(candidates)
        return remaining[int(np.argmax(self.prior_mean(remaining)))]

    @cached_property
    def unjudged(self) -> frozenset[str]:
        """Names of the dimensions of the space that no active prior and no recorded task judges.

        Settings that follow a dimension (`Space.same_as`) are judged with it.
        """
        judged = {name for activation, _ in self._active for name in activation.prior.dimensions}
        if self.experience is not None:
            judged |= self.experience.varied
        judged |= {followed for name, followed in self.space.same_as.items() if name in judged}
        return frozenset(dimension.name for dimension in self.space.dimensions) - judged

    def reasons(self, settings: TransferSettings) -> list[list[dict[str, Any]]]:
        """Returns what each source says of settings, in the order of `sources`, in JSON types.

        Each statement has four keys: `text`, `because`, `value` (that of the settings, as text) and `holds`, whether
        the statement is true of the settings.
        """
        suggestions = [suggestion for _, suggestion in self._active]
        if self._recorded is not None:
            # Tables of other architectures alone say too little to be a reason.
            statements = (_recorded_statement(self._recorded),) if self._recorded.own_architecture else ()
            suggestions.append(PriorSuggestion(statements, self.similarity_text))
        return [
            [
                {
                    "text": statement.text,
                    "because": suggestion.because,
                    "value": statement.value_text(settings),
                    "holds": statement.holds(settings),
                }
                for statement in suggestion.statements
            ]
            for suggestion in suggestions
        ]

    def explain(self, settings: TransferSettings | None = None) -> dict[str, Any]:
        """Returns a description of the model in JSON types.

        The keys are `sources`, the fields of each `PriorSource`; `silent`, name and reason of each prior that is not
        active; `tables`, the names of the recorded tasks; and, for given settings, `unjudged`, the names of the
        dimensions that no source judges.

        Args:
            settings: Settings to explain: each source has their `reasons` under the key `statements`.
        """
        sources = [dict(vars(source)) for source in self.sources]
        if settings is not None:
            for source, statements in zip(sources, self.reasons(settings), strict=True):
                source["statements"] = statements
        return {
            "sources": sources,
            "silent": [
                {"name": activation.prior.name, "reason": activation.reason}
                for activation in self.activations
                if activation.suggestion is None
            ],
            "tables": [header.name for header in self.experience.headers] if self.experience else [],
            **({} if settings is None else {"unjudged": sorted(self.unjudged)}),
        }

    @cached_property
    def _weight_means(self) -> FloatArray:
        return np.array([source.mean for source in self.sources])

    @cached_property
    def _weight_stds(self) -> FloatArray:
        return np.array([source.spread for source in self.sources])

    @cached_property
    def _normalisation(self) -> tuple[FloatArray, FloatArray]:
        """Centre and scale of each source, (sources, 1) each: mean and standard deviation over random settings."""
        rng = np.random.default_rng(derive_seed(0, "reference settings"))
        length = self.target.epochs
        raw = self._raw_scores(
            [self.space.settings(sample_params(self.space, rng), length) for _ in range(_NUM_REFERENCE_SETTINGS)]
        )
        scales = raw.std(axis=1, keepdims=True)
        # The experience is in units of the logit score already; a constant prior carries no information.
        scales[len(self._active) :] = 1.0
        return raw.mean(axis=1, keepdims=True), np.where(scales > 1e-6, scales, 1e6)

    def _raw_scores(self, settings: Sequence[TransferSettings], points: FloatArray | None = None) -> FloatArray:
        scores = [[suggestion.log_density(item) for item in settings] for _, suggestion in self._active]
        if self._recorded is None:
            return np.array(scores)
        return np.array([*scores, self._recorded.predict(settings, points)])


def _recorded_statement(recorded: TaskExperience) -> Statement:
    """Returns the statement that recorded tasks suggest settings."""
    score = Quantity(
        label="the logit score that recorded tasks predict, relative to the median recorded setting,",
        value=lambda settings: float(recorded.predict([settings])[0]),
    )
    return at_least(score, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class ConditionedSurrogate:
    """A prior surrogate conditioned on the trials of a study.

    Attributes:
        surrogate: The surrogate.
        process: Gaussian process of the logit scores without the level and the prior mean.
        level: Mean logit score of the trials.
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
        """Returns the posterior mean and standard deviation of the logit score, (settings,) each.

        Args:
            settings: Settings to predict.
            source_scores: `PriorSurrogate.source_scores` of the settings, if already computed.
            points: `encode` of the settings, if already computed.
        """
        points = encode(settings) if points is None else points
        source_scores = self.surrogate.source_scores(settings, points) if source_scores is None else source_scores
        points = self.surrogate.with_length(settings, points)
        mean, variance = self.process.predict(points, self.surrogate._weight_stds[:, None] * source_scores)
        return self.level + self.surrogate._weight_means @ source_scores + mean, np.sqrt(variance)

    def mean(
        self,
        settings: Sequence[TransferSettings],
        source_scores: FloatArray | None = None,
        points: FloatArray | None = None,
    ) -> FloatArray:
        """Returns the posterior mean only; the arguments are those of `predict`."""
        points = encode(settings) if points is None else points
        source_scores = self.surrogate.source_scores(settings, points) if source_scores is None else source_scores
        points = self.surrogate.with_length(settings, points)
        mean = self.process.mean(points, self.surrogate._weight_stds[:, None] * source_scores)
        return np.asarray(self.level + self.surrogate._weight_means @ source_scores + mean)

    def weights(self) -> list[dict[str, float]]:
        """Returns the posterior weight of each source: mean (`after`) and standard deviation (`after_spread`)."""
        means, stds = self.process.basis_weights
        return [
            {
                "after": source.mean + source.spread * float(mean),
                "after_spread": source.spread * float(std),
            }
            for source, mean, std in zip(self.surrogate.sources, means, stds, strict=True)
        ]
