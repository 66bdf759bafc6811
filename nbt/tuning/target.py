"""The target task of a search: facts and fit profile, known before any trial and used by priors and models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbt.fit.advantage import advantage, is_clear_advantage, is_no_advantage
from nbt.metrics import DEFAULT_METRIC
from nbt.tuning.storage.codec import TLI_SIMILARITIES, TLI_SIMILARITY, score_images

_DEFAULT_VALIDATION_IMAGES = 200


@dataclass(frozen=True, kw_only=True)
class Target:
    """Facts about a dataset and the fit profile of a backbone on it.

    Attributes:
        epochs: Length of a full trial.
        facts: Facts about the dataset; see `nbt.task.summary.dataset_summary`.
        scalars: Finite scalars of the fit profile; empty without a profile.
        layers: Rows of the fit profile, one per unit, starting at the input.
        metric: Name of the metric of the search.
        has_random_weights: Whether the weights of the backbone are random.
        backbone: The backbone, "NAME" or "NAME(key=value, ...)"; "" if it is unknown.
    """

    epochs: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)
    layers: Sequence[Mapping[str, Any]] = ()
    metric: str = DEFAULT_METRIC
    has_random_weights: bool = False
    backbone: str = ""

    @classmethod
    def of(
        cls,
        facts: Mapping[str, Any],
        profile: Mapping[str, Any] | None,
        epochs: int,
        metric: str = DEFAULT_METRIC,
        backbone: str = "",
    ) -> Target:
        """Creates a target from facts about a dataset and a fit profile.

        Args:
            facts: Facts about the dataset.
            profile: The profile as returned by `FitProfile.to_dict`; None without one.
            epochs: Length of a full trial.
            metric: Name of the metric of the search.
            backbone: The backbone, which a profile may not name.
        """
        if profile is None:
            return cls(epochs=epochs, facts=facts, metric=metric, backbone=backbone)
        source = profile.get("facts", {})
        return cls(
            epochs=epochs,
            facts=facts,
            scalars=_finite_values(profile["scalars"]),
            layers=profile["layers"],
            metric=metric,
            has_random_weights=source.get("weights") == "none",
            backbone=source.get("backbone") or backbone,
        )

    @property
    def validation_images(self) -> int:
        """Number of validation images by which the error of a score is estimated; 200 if it is unknown."""
        return score_images(self.facts, self.metric) or _DEFAULT_VALIDATION_IMAGES

    @property
    def train_images(self) -> float | None:
        """Number of training images; None if it is unknown."""
        return self._fact_or_scalar("train_images")

    @property
    def classes(self) -> float | None:
        """Number of classes; None if it is unknown."""
        return self._fact_or_scalar("classes")

    @property
    def images_per_class(self) -> float | None:
        """Mean number of training images per class; None if it is unknown."""
        return self.train_images / self.classes if self.train_images and self.classes else None

    @property
    def probe(self) -> float | None:
        """Accuracy of the ridge probe on the pretrained features, 0 ... 1; None if it is unknown."""
        return self.scalars.get("ridge_accuracy")

    @property
    def advantage(self) -> float | None:
        """`nbt.fit.advantage.advantage` of the ridge probe, at most 1; None if it is unknown.

        It is computed from the two accuracies, because profiles of version 0.1 do not store it.
        """
        pretrained, random = self.probe, self.scalars.get("ridge_accuracy_random")
        return None if pretrained is None or random is None else advantage(pretrained, random)

    @property
    def has_clear_advantage(self) -> bool | None:
        """Whether the ridge probe of the best pretrained unit is clearly better than that of the best random unit.

        The last units alone would mislead: random weights lose the image with depth, so that the last unit of any
        other weights, even of noise, may look better. None if the measures are missing, and where the weights are
        random, so that nothing could be transferred.
        """
        probes = self._best_probes()
        return None if probes is None else is_clear_advantage(*probes)

    @property
    def has_no_advantage(self) -> bool:
        """Whether the ridge probe shows that the best pretrained unit is hardly better than the best random unit.

        Such weights fit the target as little as random ones; `has_clear_advantage` is False then. False if the probe
        cannot tell, the measures are missing, or the weights are random.
        """
        probes = self._best_probes()
        return probes is not None and is_no_advantage(*probes)

    def _best_probes(self) -> tuple[float, float, float] | None:
        """Returns the probe accuracies of the best pretrained and of the best random unit, and their images."""
        images, own = self.scalars.get("samples"), self.layer("ridge_accuracy")
        random = self.layer("ridge_accuracy_random")
        if self.has_random_weights or not images or not own or not random:
            return None
        return max(own), max(random), images

    @property
    def architecture(self) -> str:
        """Name of the backbone without its arguments, such as its width; "" if it is unknown."""
        return self.backbone.partition("(")[0]

    @property
    def tli_similarity(self) -> float | None:
        """TLI similarity of the backbone to the most similar teacher, 0 ... 1; None without a teacher."""
        value = self.facts.get(TLI_SIMILARITY)
        return None if value is None else float(value)

    @property
    def tli_similarities(self) -> Mapping[str, float] | None:
        """TLI similarity of the backbone to each of several teachers, by name; None with fewer than two."""
        return self.facts.get(TLI_SIMILARITIES)

    def _fact_or_scalar(self, name: str) -> float | None:
        """Returns a value of the dataset's facts or, if it is missing or 0, of the profile."""
        value = self.facts.get(name) or self.scalars.get(name)
        return float(value) if value else None

    def layer(self, column: str) -> list[float]:
        """Returns a column of the profile, one value per unit; empty if a unit lacks a finite value."""
        values = [row.get(column) for row in self.layers]
        finite = [float(value) for value in values if value is not None and math.isfinite(value)]
        return finite if len(finite) == len(values) else []


def _finite_values(scalars: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in scalars.items() if value is not None and math.isfinite(value)}
