"""The metrics of a classifier, each declared once; `nbt.training.metrics` computes them.

A search compares runs by the *score* of its metric, which is in 0 ... 1 and higher for better values. People are shown
the value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of a classifier.

    Attributes:
        name: Its name in options, records and tables.
        label: Its name in texts.
        low: Lowest possible value.
        high: Highest possible value.
        higher_is_better: Whether a higher value is better.
        single_class: Whether it is defined if all images belong to one class.
        class_mean: Whether it is a mean over the classes, in which the images of small classes count more.
    """

    name: str
    label: str
    low: float = 0.0
    high: float = 1.0
    higher_is_better: bool = True
    single_class: bool = True
    class_mean: bool = False

    @property
    def is_share(self) -> bool:
        """Whether values are shares, 0 ... 1, shown in percent; the others are in nats."""
        return self.high == 1.0

    @property
    def unit(self) -> str:
        """The unit in which values are shown."""
        return "%" if self.is_share else "nats"

    @property
    def difference_unit(self) -> str:
        """The unit in which differences of values are shown."""
        return "points" if self.is_share else "nats"

    def score(self, value: float) -> float:
        """Returns the score of a value, 0 ... 1: a share itself, or exp(-v) of a mean cross-entropy v.

        The latter is the geometric mean of the probabilities of the true classes.
        """
        return value if self.is_share else math.exp(-value)

    def value(self, score: float) -> float:
        """Returns the value with a score; the inverse of `score`. A cross-entropy is infinite at score 0."""
        return score if self.is_share else math.inf if score <= 0.0 else -math.log(score)

    def difference(self, score_difference: float, reference: float) -> float:
        """Returns the difference in value to that of a score `reference`, from the difference in score."""
        if self.is_share:
            return score_difference
        return self.value(reference + score_difference) - self.value(reference)

    def format_score(self, score: float) -> str:
        """Returns the value with a score and its unit, such as "71.2 %" or "0.830 nats"."""
        value = self.value(score)
        return f"{100 * value:.1f} %" if self.is_share else f"{value:.3f} nats"

    def format_difference(self, score_difference: float, reference: float) -> str:
        """Returns `difference` with its sign and without its unit, such as "+1.2" or "-0.120"."""
        difference = self.difference(score_difference, reference)
        return f"{100 * difference:+.1f}" if self.is_share else f"{difference:+.3f}"


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="accuracy", label="accuracy"),
        Metric(name="balanced_accuracy", label="balanced accuracy", class_mean=True),
        Metric(name="macro_f1", label="macro F1", class_mean=True),
        Metric(name="auroc", label="AUROC", single_class=False, class_mean=True),
        Metric(name="log_loss", label="log loss", high=math.inf, higher_is_better=False),
    )
}
"""All metrics by name."""

DEFAULT_METRIC = "accuracy"
"""The metric of searches that choose none, of studies of version 0.1, of recorded tables and of streams of tasks."""
