"""The prior surrogate of a search over several backbones.

Each backbone has the priors of its own fit profile. The mean also has one source per backbone: its offset to the
reference, which the forecast of its accuracy gives and the trials correct. The process, which models what the sources
do not explain, is shared in part: its correlation between equal settings of two backbones is .6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbt.settings import TransferSettings
from nbt.tuning.priors.prior import Prior
from nbt.tuning.space.encoding import encode
from nbt.tuning.space.space import BACKBONE, Space
from nbt.tuning.storage.candidates import CandidateRecord
from nbt.tuning.surrogate.experience_model import ExperienceModel
from nbt.tuning.surrogate.gaussian_process import Kernel
from nbt.tuning.surrogate.logit_score import LOGIT_SCORE_UNIT
from nbt.tuning.surrogate.prior_surrogate import PriorSource, PriorSurrogate
from nbt.tuning.target import Target

FloatArray = NDArray[np.float64]

_LENGTH_SCALE = 1.0
# With this value, the distance between two backbones is 1.
_ONE_HOT_VALUE = math.sqrt(0.5)
# Standard deviation of an offset, in log odds, without a forecast.
_UNKNOWN_SPREAD = 1.0
_ORIGIN = "probes of its features, before any training"


class BackboneSurrogate(PriorSurrogate):
    """Prior surrogate of a search over several backbones; see the module's documentation.

    Args:
        targets: Targets by the setting `backbone`, that of the reference, "", first.
        candidates: What is known of the backbones, in the same order.
        space: Search space.
        experience: Model of the recorded tasks; None without any.
        beliefs: As in `PriorSurrogate`.
    """

    def __init__(
        self,
        targets: Mapping[str, Target],
        candidates: Sequence[CandidateRecord],
        space: Space,
        experience: ExperienceModel | None = None,
        *,
        beliefs: Sequence[Prior] = (),
    ) -> None:
        super().__init__(targets[""], space, experience, beliefs=beliefs)
        self._members = {
            name: PriorSurrogate(target, space, experience, beliefs=beliefs) for name, target in targets.items()
        }
        self._candidates = dict(zip(targets, candidates, strict=True))
        self.backbone_costs = {name: candidate.cost for name, candidate in self._candidates.items()}

    @property
    def targets(self) -> Mapping[str, Target]:
        """As in `PriorSurrogate`."""
        return {name: member.target for name, member in self._members.items()}

    @cached_property
    def sources(self) -> tuple[PriorSource, ...]:
        """Sources of the prior mean: priors and recorded tasks of any backbone, then the offset of each backbone.

        Where a prior has more weight with one backbone than with another, it has the greatest weight here.
        """
        found: dict[str, PriorSource] = {}
        for source in (source for member in self._members.values() for source in member.sources):
            if source.name not in found or abs(source.mean) > abs(found[source.name].mean):
                found[source.name] = source
        return (*found.values(), *(self._offset(name) for name in self._members))

    def _offset(self, name: str) -> PriorSource:
        """Returns the source of a backbone: its expected logit score relative to the reference."""
        candidate, known = self._candidates[name], [c.forecast for c in self._candidates.values() if c.forecast]
        expected, spread = fmean([forecast.log_odds for forecast in known] or [0.0]), _UNKNOWN_SPREAD
        words = "expect nothing of it, because its fit could not be measured"
        if candidate.forecast is not None:
            expected, spread = candidate.forecast.log_odds, candidate.forecast.spread
            ends = [f"{100 * end:.0f}" for end in (candidate.forecast.low, candidate.forecast.high)]
            words = f"expect {100 * candidate.forecast.mean:.0f} % accuracy ({' to '.join(ends)})"
        reference = self._candidates[""].forecast
        mean = expected - (expected if reference is None else reference.log_odds)
        return PriorSource(
            name=f"backbone: {candidate.name}",
            words=words,
            origin=_ORIGIN,
            mean=mean / LOGIT_SCORE_UNIT,
            spread=spread / LOGIT_SCORE_UNIT,
        )

    @property
    def kernel(self) -> Kernel:
        """Kernel of the residual that the sources do not explain."""
        kernel = super().kernel
        scales = np.r_[kernel.length_scales, np.full(len(self._members), _LENGTH_SCALE)]
        return Kernel(scales, kernel.amplitude, kernel.noise)

    def with_length(self, settings: Sequence[TransferSettings], points: FloatArray) -> FloatArray:
        """Returns the points with coordinates for the length of the training, if it varies, and for the backbone."""
        return np.asarray(np.c_[super().with_length(settings, points), _ONE_HOT_VALUE * self._one_hot(settings).T])

    def source_scores(self, settings: Sequence[TransferSettings], points: FloatArray | None = None) -> FloatArray:
        """Returns the score of each source for settings, (sources, settings); see `PriorSurrogate.source_scores`.

        A source that the backbone of the settings does not have scores 0, and one that has less weight with it scores
        less.
        """
        points = encode(settings) if points is None else points
        rows = {source.name: i for i, source in enumerate(self.sources)}
        scores = np.zeros((len(rows), len(settings)))
        for name, member in self._members.items():
            index = [i for i, recipe in enumerate(settings) if recipe.backbone == name]
            if index and member.sources:
                own = [rows[source.name] for source in member.sources]
                greatest = [self.sources[row].mean for row in own]
                pairs = zip(member.sources, greatest, strict=True)
                shares = np.array([[source.mean / mean if mean else 1.0] for source, mean in pairs])
                found = member.source_scores([settings[i] for i in index], points[index])
                scores[np.ix_(own, index)] = shares * found
        scores[len(rows) - len(self._members) :] = self._one_hot(settings)
        return scores

    def _one_hot(self, settings: Sequence[TransferSettings]) -> FloatArray:
        """Returns whether settings have a backbone, (backbones, settings)."""
        return np.array([[recipe.backbone == name for recipe in settings] for name in self._members], dtype=float)

    @cached_property
    def unjudged(self) -> frozenset[str]:
        """Names of the dimensions that no source of any backbone judges; the backbone is always judged."""
        return frozenset.intersection(*(member.unjudged for member in self._members.values())) - {BACKBONE}

    def reasons(self, settings: TransferSettings) -> list[list[dict[str, Any]]]:
        """Returns what each source says of settings, in the order of `sources`; see `PriorSurrogate.reasons`."""
        member = self._members[settings.backbone]
        said = dict(zip((source.name for source in member.sources), member.reasons(settings), strict=True))
        return [said.get(source.name, []) for source in self.sources]
