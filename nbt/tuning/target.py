"""Target: what is known of a task before anything is trained on it, as heuristics and models read it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbt.tuning.storage.codec import TLI_SIMILARITY, VALIDATION_IMAGES

_DEFAULT_VALIDATION_IMAGES = 200


@dataclass(frozen=True, kw_only=True)
class Target:
    """Facts of a dataset and the fit profile of a backbone on it.

    Attributes:
        epochs: Length of a full trial.
        facts: Of the dataset, see `nbt.task.summary.dataset_summary`.
        scalars: Of the fit profile; empty where there is none.
        layers: Rows of the fit profile, from the input.
    """

    epochs: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)
    layers: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(cls, facts: Mapping[str, Any], profile: Mapping[str, Any] | None, epochs: int) -> Target:
        """Returns the target that a dataset's facts and a profile (`FitProfile.to_dict`) describe."""
        if profile is None:
            return cls(epochs=epochs, facts=facts)
        return cls(epochs=epochs, facts=facts, scalars=_finite_values(profile["scalars"]), layers=profile["layers"])

    @property
    def validation_images(self) -> int:
        """Number of images that a trial's accuracy is measured on."""
        return int(self.facts.get(VALIDATION_IMAGES) or _DEFAULT_VALIDATION_IMAGES)

    @property
    def train_images(self) -> float | None:
        """Number of training images."""
        return self._fact_or_scalar("train_images")

    @property
    def classes(self) -> float | None:
        """Number of classes."""
        return self._fact_or_scalar("classes")

    @property
    def images_per_class(self) -> float | None:
        """Mean number of training images a class."""
        return self.train_images / self.classes if self.train_images and self.classes else None

    @property
    def probe(self) -> float | None:
        """Accuracy of the ridge probe on the pretrained features, 0 ... 1."""
        return self.scalars.get("ridge_accuracy")

    @property
    def pretraining_advantage(self) -> float | None:
        """Share of a random network's probe error that pretraining takes away, at most 1; 0 or less is no use."""
        probe, random = self.probe, self.scalars.get("ridge_accuracy_random")
        if probe is None or random is None:
            return None
        return (probe - random) / max(1.0 - random, 1e-3)

    @property
    def tli_similarity(self) -> float | None:
        """TLI similarity of the backbone to the teacher that can be injected from, 0 ... 1."""
        value = self.facts.get(TLI_SIMILARITY)
        return None if value is None else float(value)

    def _fact_or_scalar(self, name: str) -> float | None:
        """Returns what the dataset's facts say, or else the profile."""
        value = self.facts.get(name) or self.scalars.get(name)
        return float(value) if value else None

    def layer(self, column: str) -> list[float]:
        """Returns a column of the profile by unit; empty where a unit has no value."""
        values = [row.get(column) for row in self.layers]
        found = [float(value) for value in values if value is not None and math.isfinite(value)]
        return found if len(found) == len(values) else []


def _finite_values(scalars: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in scalars.items() if value is not None and math.isfinite(value)}
