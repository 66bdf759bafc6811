"""The card "mistakes": the most confident wrong predictions, and the least certain test images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nbt.report.formatting import TemplateData, one_line, percent
from nbt.report.study.calibration import study_calibration
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.report.study.dataset_images import DatasetImages
from nbt.report.table import Column, table_of
from nbt.training.metrics import Predictions
from nbt.tuning.finals.test_results import class_name

MAX_SHOWN = 12
_SIZE = 112


class Mistakes(Card):
    """Single test images that are worth a look, with names, classes and calibrated probabilities."""

    name = "mistakes"
    title = "Mistakes and uncertain images"

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns both lists; without thumbnails where the images are left out or cannot be read."""
        predictions = study.record.test_predictions("recommended")
        if predictions is None or not len(predictions.index):
            return NotApplicable("the study stores no predictions of the test images")
        probabilities = calibrated_probabilities(predictions, _temperature(study))
        confidence = probabilities.max(axis=1)
        wrong = np.flatnonzero(predictions.predicted != predictions.labels)
        images = study.images
        source = images if isinstance(images, DatasetImages) else None
        reason = "" if isinstance(images, DatasetImages) else images.reason
        if not study.record.search_config().images:
            reason = "they were left out (--no-images)"
        groups = {
            "Most confident mistakes": wrong[np.argsort(-confidence[wrong], kind="stable")],
            "Least certain images": np.argsort(confidence, kind="stable"),
        }
        return TemplateData(
            groups=[
                _group(title, rows[:MAX_SHOWN].tolist(), predictions, confidence, study, source, with_images=not reason)
                for title, rows in groups.items()
            ],
            n_wrong=len(wrong),
            n=len(predictions.labels),
            missing=reason,
        )


def calibrated_probabilities(predictions: Predictions, temperature: float) -> np.ndarray:
    """Returns the probabilities, (n, C), as the exported model gives them: of the logits divided by the temperature."""
    scaled = np.exp(predictions.log_probabilities / temperature)
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def _temperature(study: StudyView) -> float:
    calibration = study_calibration(study.record)
    return 1.0 if calibration is None else calibration.temperature


def _group(
    title: str,
    rows: Iterable[int],
    predictions: Predictions,
    confidence: np.ndarray,
    study: StudyView,
    images: DatasetImages | None,
    *,
    with_images: bool,
) -> TemplateData:
    index = [int(predictions.index[row]) for row in rows]
    uris = images.thumbnails(index, _SIZE) if images is not None and with_images else {}
    items = [
        TemplateData(
            uri=uris.get(image),
            name=f"image {image}" if images is None else one_line(images.names[image]),
            true=one_line(class_name(int(predictions.labels[row]), study.record.class_names)),
            predicted=one_line(class_name(int(predictions.predicted[row]), study.record.class_names)),
            probability=percent(float(confidence[row])),
            is_wrong=bool(predictions.labels[row] != predictions.predicted[row]),
        )
        for row, image in zip(rows, index, strict=True)
    ]
    columns = {"name": "test image", "true": "true class", "predicted": "predicted class"}
    listed = table_of(title, items, MAX_SHOWN, **columns, probability=Column("probability", "n"))
    return TemplateData(title=title, images=items, table=listed)
