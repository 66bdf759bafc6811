"""Guide: what profile, rules and recorded tasks expect of settings, and how much of it a search's trials bear out.

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

from nbt.search.encoding import encode, prior_kernel
from nbt.search.gp import GaussianProcess, Kernel
from nbt.search.heuristics import fire
from nbt.search.recording import draw_params
from nbt.search.space import Space
from nbt.search.target import Target
from nbt.search.task_model import TaskModel, similarity, table_target
from nbt.settings import TransferSettings
from nbt.training.seeds import derive_seed

Vector = NDArray[np.float64]

_REFERENCES = 256
# A table of a task like this one counts for half of the expectation, rules for the rest; more tables for more.
_RULES_WEIGHT = 1.0
_TABLE_SPREAD = 0.4
_RULE_SPREAD = 0.7
# What is left to the process once rules and tables have spoken, and without them.
_AMPLITUDE_WITH_TABLES, _AMPLITUDE_ALONE = 0.5, 1.0
_NUGGET = 0.05
_SHORT_LENGTHS = 0.6
_ENOUGH_TO_FIT = 10


@dataclass(frozen=True, kw_only=True)
class Source:
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


class Guide:
    """See the module.

    Args:
        target: What is known of the task.
        space: What is searched.
        experience: Models of recorded tasks.
        heuristics: Whether the rules speak.
        trust: Factor on all that is expected beforehand; 1, but for studies of what a wrong expectation costs.
    """

    def __init__(
        self,
        target: Target,
        space: Space,
        experience: Sequence[TaskModel] = (),
        *,
        heuristics: bool = True,
        trust: float = 1.0,
    ) -> None:
        self.target, self.space, self.experience = target, space, tuple(experience)
        self.firings = fire(target, [*(d.name for d in space.dimensions), *space.same_as]) if heuristics else []
        self._fired = [(one, one.proposal) for one in self.firings if one.proposal is not None]
        alike = np.array([similarity(target, table_target(model.header)) for model in self.experience])
        self._learned = float(alike.sum() / (alike.sum() + _RULES_WEIGHT)) if self._fired else float(bool(len(alike)))
        self._shares = self._learned * alike / alike.sum() if alike.sum() > 0 else alike
        self._alike = alike
        self._trust = trust

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """What the expectation comes from: the heuristics that fired, then the recorded tasks."""
        rules = [
            Source(
                name=firing.heuristic.name,
                words=proposal.words,
                origin=firing.heuristic.source,
                mean=self._trust * (1 - self._learned) * firing.heuristic.strength,
                spread=_RULE_SPREAD * firing.heuristic.strength,
            )
            for firing, proposal in self._fired
        ]
        tables = [
            Source(
                name=f"recorded: {model.header.name}",
                words=f"what {model.header.name} was trained best with",
                origin=f"similarity of the tasks {alike:.2f}",
                mean=self._trust * float(share),
                spread=_TABLE_SPREAD,
            )
            for model, alike, share in zip(self.experience, self._alike, self._shares, strict=True)
        ]
        return (*rules, *tables)

    @property
    def kernel(self) -> Kernel:
        """The kernel of what no source explains."""
        if self.experience:
            lengths = Kernel.mean([model.process.kernel for model in self.experience]).lengths
            return Kernel(lengths, _AMPLITUDE_WITH_TABLES, _NUGGET)
        return Kernel(_SHORT_LENGTHS * prior_kernel().lengths, _AMPLITUDE_ALONE, _NUGGET)

    def opinions(self, settings: Sequence[TransferSettings], points: Vector | None = None) -> Vector:
        """Returns what each source says of settings, (sources, settings), in its own standard deviations.

        Args:
            settings: To be judged.
            points: `encode` of them, where it is known already.
        """
        if not self.sources:
            return np.zeros((0, len(settings)))
        centres, scales = self._normal
        return np.asarray(np.clip((self._raw(settings, points) - centres) / scales, -3.0, 3.0))

    def expectation(self, settings: Sequence[TransferSettings]) -> Vector:
        """Returns the merit that is expected of settings before any trial, (settings,), from that of a random one."""
        return np.asarray(self._means @ self.opinions(settings))

    def condition(
        self,
        settings: Sequence[TransferSettings],
        merits: Vector,
        variance: Vector,
        opinions: Vector | None = None,
        points: Vector | None = None,
    ) -> Conditioned:
        """Returns the model given trials.

        Args:
            settings: Of the trials, at least one.
            merits: What they reached, (trials,).
            variance: Of each, (trials,).
            opinions: Of the trials, where they are known already.
            points: `encode` of them, likewise.
        """
        points = encode(settings) if points is None else points
        opinions = self.opinions(settings, points) if opinions is None else opinions
        level = float(np.mean(merits))
        rest, basis = merits - level - self._means @ opinions, self._spreads[:, None] * opinions
        process = GaussianProcess.given(
            self._kernel(points, rest, variance, basis), points, rest, noise=variance, basis=basis
        )
        return Conditioned(self, process, level)

    def _kernel(self, points: Vector, values: Vector, variance: Vector, basis: Vector) -> Kernel:
        """Returns the kernel for a study's trials: without recorded tasks, which show one, it is fitted to them."""
        if self.experience or len(values) < _ENOUGH_TO_FIT:
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
        return left[int(np.argmax(self.expectation(left)))]

    def explain(self) -> dict[str, Any]:
        """Returns what fired, what did not, and what was known, in JSON types."""
        return {
            "sources": [dict(vars(source)) for source in self.sources],
            "silent": [
                {"name": one.heuristic.name, "reason": one.reason} for one in self.firings if one.proposal is None
            ],
            "tables": [model.header.name for model in self.experience],
        }

    @cached_property
    def _means(self) -> Vector:
        return np.array([source.mean for source in self.sources])

    @cached_property
    def _spreads(self) -> Vector:
        return np.array([source.spread for source in self.sources])

    @cached_property
    def _normal(self) -> tuple[Vector, Vector]:
        """Mean and standard deviation of each source over random settings, as columns."""
        draws = np.random.default_rng(derive_seed(0, "reference settings"))
        length = self.target.epochs
        raw = self._raw([self.space.settings(draw_params(self.space, draws), length) for _ in range(_REFERENCES)])
        scales = raw.std(axis=1, keepdims=True)
        # Tables are in units of merit already, and a rule that says the same of everything says nothing.
        rules = len(self._fired)
        scales[rules:] = 1.0
        return raw.mean(axis=1, keepdims=True), np.where(scales > 1e-6, scales, 1e6)

    def _raw(self, settings: Sequence[TransferSettings], points: Vector | None = None) -> Vector:
        rules = [[proposal.score(one) for one in settings] for _, proposal in self._fired]
        points = encode(settings) if points is None else points
        return np.array([*rules, *(model.predict(points) for model in self.experience)])


@dataclass(frozen=True, eq=False)
class Conditioned:
    """A guide's model given the trials of a study.

    Attributes:
        guide: Whose.
        process: Of the merits beside level and expectation.
        level: Mean merit of the trials.
    """

    guide: Guide
    process: GaussianProcess
    level: float

    def predict(
        self, settings: Sequence[TransferSettings], opinions: Vector | None = None, points: Vector | None = None
    ) -> tuple[Vector, Vector]:
        """Returns mean and standard deviation of the merit of settings, (settings,) each.

        Args:
            settings: To be judged.
            opinions: `Guide.opinions` of them, where it is known already.
            points: `encode` of them, likewise.
        """
        points = encode(settings) if points is None else points
        opinions = self.guide.opinions(settings, points) if opinions is None else opinions
        mean, variance = self.process.predict(points, self.guide._spreads[:, None] * opinions)
        return self.level + self.guide._means @ opinions + mean, np.sqrt(variance)

    def mean(
        self, settings: Sequence[TransferSettings], opinions: Vector | None = None, points: Vector | None = None
    ) -> Vector:
        """Returns the mean alone; see `predict`."""
        points = encode(settings) if points is None else points
        opinions = self.guide.opinions(settings, points) if opinions is None else opinions
        mean = self.process.mean(points, self.guide._spreads[:, None] * opinions)
        return np.asarray(self.level + self.guide._means @ opinions + mean)

    def weights(self) -> list[dict[str, float]]:
        """Returns the weight of each source given the trials: its mean as `after`, its spread as `after_spread`."""
        mean, spread = self.process.basis_weights
        return [
            {
                "after": source.mean + source.spread * float(m),
                "after_spread": source.spread * float(s),
            }
            for source, m, s in zip(self.guide.sources, mean, spread, strict=True)
        ]
