"""Comparisons of sample studies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nbt.report.comparison.content import StudyComparison, compare_studies
from nbt.tuning.storage import codec
from nbt.tuning.storage.records import StudyRecord
from tests.predictions import fake_predictions
from tests.sample_study import BEST, DEFAULT, evaluated_study, with_config


def study(name: str, accuracy: float = 0.695, images: int = 1174, draw: int = 0, **changes: Any) -> StudyRecord:
    """Returns an evaluated study of 12 classes, whose recommendation has the given test accuracy."""
    predictions = {
        codec.test_key(BEST): fake_predictions(accuracy, images, 12, draw),
        codec.test_key(DEFAULT): fake_predictions(0.651, images, 12, draw + 1),
    }
    record = evaluated_study(12, images, load_predictions=predictions.get)
    return with_config(record, **{"name": name, "content_hash": "5ea", **changes})


def comparison(accuracy: float = 0.79, **changes: Any) -> StudyComparison:
    """Returns the comparison of study "a" (0.695) with study "b"."""
    return compare_studies([study("a"), study("b", accuracy, **changes)])


def with_search(record: StudyRecord, **options: Any) -> StudyRecord:
    return replace(record, search=record.search_config().replace(**options))
