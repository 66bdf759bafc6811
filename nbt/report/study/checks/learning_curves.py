"""NBT207: the metric still improves at the end of the training, or the model overfits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from nbt.checks import Check, CheckResult
from nbt.metrics import METRICS
from nbt.report.formatting import difference_number, format_number, score_text
from nbt.report.study.headline import Z95, error_text
from nbt.report.study.recommendation import StudyRecommendation, current_recommendation
from nbt.training.results import EpochResult
from nbt.tuning.intervals import accuracy_standard_error
from nbt.tuning.storage.codec import VALIDATION_FIXED, score_images
from nbt.tuning.storage.records import StudyRecord

_MIN_EPOCHS = 4
_LAST_PART = 0.25
_MIN_RISE = 0.02
"""Rise of the score in the last part of the training that counts."""
_MIN_LOSS_RISE = 0.1
"""Rise of the validation loss above its minimum that counts, as a share of the minimum."""


class LearningCurves(Check[StudyRecord]):
    """Reads the learning curves of the recommended settings, averaged over the final runs."""

    code = "NBT207"
    title = "training too short or too long"
    severity = "warning"

    def run(self, subject: StudyRecord) -> CheckResult:
        """Looks for a score that rises in the last quarter, or a validation loss that rises over the training."""
        recommendation = current_recommendation(subject)
        metric = METRICS[subject.config.metric]
        curves = [] if recommendation is None else _curves(recommendation, metric.name)
        if not curves:
            return self.not_applicable(
                f"The recommended settings have no learning curve of {_MIN_EPOCHS} or more epochs with validation."
            )
        found, epochs = _overfitting(curves), len(curves[0])
        if found:
            return self.failed(
                found,
                f"Search with fewer --epochs than {epochs}, or widen the ranges of decay_strength, mixup and "
                "label_smoothing in a --space FILE; the probabilities of this model are overconfident.",
            )
        score, rise = (fmean(v) for v in zip(*(_end_and_rise(c, metric.name) for c in curves), strict=True))
        found = (
            f"In the last quarter of {epochs} epochs the validation {metric.label} changes by "
            f"{difference_number(rise, metric, score - rise)} {metric.difference_unit} to {score_text(score, metric)}"
        )
        images = score_images(subject.dataset, metric.name) or 0
        if subject.dataset.get(VALIDATION_FIXED) is False:  # unknown in old studies
            images *= len(curves)
        noise = Z95 * accuracy_standard_error(score, images)
        if rise >= max(_MIN_RISE, noise):
            return self.failed(
                f"{found}, more than noise ({error_text(noise, metric, score - rise)}).",
                f"Search with more --epochs than {epochs}, such as --epochs {2 * epochs}.",
                severity="info",
            )
        return self.passed(f"{found}, and the validation loss does not rise.")


def _curves(recommendation: StudyRecommendation, metric: str) -> list[tuple[EpochResult, ...]]:
    """Returns the complete curves of the final runs, or of the trial before the finals."""
    runs = [] if recommendation.final is None else [run.curve for run in recommendation.final.runs]
    curves = runs or ([] if recommendation.trial is None else [recommendation.trial.curve])
    length = recommendation.settings.epochs
    return [
        curve
        for curve in curves
        if length >= _MIN_EPOCHS and len(curve) == length and all(_is_known(result, metric) for result in curve)
    ]


def _is_known(result: EpochResult, metric: str) -> bool:
    return result.value(metric) is not None and result.val_loss is not None and math.isfinite(result.train_loss)


def _end_and_rise(curve: Sequence[EpochResult], metric: str) -> tuple[float, float]:
    """Returns the last score, and its rise since the beginning of the last part of the training."""
    start = max(1, round((1 - _LAST_PART) * len(curve)))
    end = curve[-1].score(metric) or 0.0
    return end, end - (curve[start - 1].score(metric) or 0.0)


def _overfitting(curves: Sequence[Sequence[EpochResult]]) -> str:
    """Returns a sentence on the rise of the mean validation loss while the training loss falls, else ""."""
    epochs = list(zip(*curves, strict=True))
    val_loss = [fmean(result.val_loss or 0.0 for result in epoch) for epoch in epochs]
    train_loss = [fmean(result.train_loss for result in epoch) for epoch in epochs]
    best = min(range(len(epochs)), key=val_loss.__getitem__)
    if val_loss[-1] < (1 + _MIN_LOSS_RISE) * val_loss[best] or train_loss[-1] >= train_loss[best]:
        return ""
    return (
        f"The validation loss rises from {format_number(val_loss[best])} after epoch {best + 1} to "
        f"{format_number(val_loss[-1])} after epoch {len(epochs)}, while the training loss falls from "
        f"{format_number(train_loss[best])} to {format_number(train_loss[-1])}."
    )
