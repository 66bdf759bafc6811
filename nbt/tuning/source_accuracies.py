"""Source accuracy in the results of a study: reference, recommendation and baseline, and the front of its trials."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from nbt.tuning.intervals import Interval, interval_json, wilson_interval
from nbt.tuning.storage.records import StudyRecord, TrialRecord


@dataclass(frozen=True, kw_only=True)
class SourceAccuracies:
    """Accuracies with the unchanged classifier of the source on the images of `--source-data`, 0 ... 1.

    Attributes:
        reference: That of the pretrained weights from which the recommended settings start; None if they have no usable
            classifier.
        recommended: That of the tested model of the recommended settings; None before its training.
        baseline: That of the tested model of the default recipe; None before its training.
        images: Number of these images.
        copies: Number of them whose pixels are those of an earlier one.
        near_copies: Number of them that are near copies of an earlier one.
    """

    reference: float | None
    recommended: float | None = None
    baseline: float | None = None
    images: int
    copies: int = 0
    near_copies: int = 0

    def interval(self, accuracy: float) -> Interval:
        """Returns one of the accuracies with its 95 % interval over the images, as a test accuracy has it."""
        return wilson_interval(accuracy, self.images)

    def to_json(self) -> dict[str, Any]:
        """Returns the accuracies, their intervals by the same name, and the numbers of images in JSON types."""
        known = {"reference": self.reference, "recommended": self.recommended, "baseline": self.baseline}
        intervals = {
            name: None if value is None else interval_json(self.interval(value)) for name, value in known.items()
        }
        return {**asdict(self), "intervals": intervals}


def source_accuracies(record: StudyRecord) -> SourceAccuracies | None:
    """Returns the source accuracies of a study; None without `--source-data`."""
    if record.source is None:
        return None
    final = record.final(record.recommended or "")
    backbone = "" if final is None else final.settings.backbone
    tested = {test.name: test.source_accuracy for test in record.test}
    source = record.source
    return SourceAccuracies(
        reference=source.references.get(backbone),
        images=source.images,
        copies=source.copies,
        near_copies=source.near_copies,
        **tested,
    )


def source_front(record: StudyRecord) -> list[TrialRecord]:
    """Returns the Pareto front of target and source: the best full-length trials by the metric of the study first.

    No other full-length trial is at least as good as one of them in both score and source accuracy and better in one.
    Diverged trials are left out.
    """
    metric = record.config.metric
    points = [
        (trial, score, trial.source_accuracy) for trial in record.trials if (score := trial.score(metric)) is not None
    ]
    known = [(trial, score, source) for trial, score, source in points if source is not None and not trial.diverged]
    front: list[TrialRecord] = []
    reached, last = -math.inf, (math.nan, math.nan)
    for trial, score, source in sorted(known, key=lambda point: (-point[1], -point[2], point[0].number)):
        if source > reached or (score, source) == last:
            front.append(trial)
            reached, last = source, (score, source)
    return front
