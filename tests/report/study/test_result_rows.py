"""The results as rows of text: what was measured, and whether the difference to the default recipe is beyond chance."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nbt.report.study import result_rows
from nbt.report.study.result_rows import study_rows
from nbt.tuning.finals.test_results import TestResult, test_results
from nbt.tuning.intervals import Interval
from tests.sample_study import sample_study


def difference_row(
    monkeypatch: pytest.MonkeyPatch, low: float | None, high: float | None, metric: str = "accuracy"
) -> tuple[str, str]:
    """Returns value and remark of the row for an interval around .05."""
    record = sample_study()
    stored = test_results(record)
    assert stored is not None
    difference = Interval(mean=0.05, low=low, high=high, n=900)
    value = TestResult(metric=metric, metrics={metric: Interval(mean=0.7, low=0.6, high=0.8, n=900)}, n=900)
    results = replace(stored, recommended=value, difference=difference)
    monkeypatch.setattr(result_rows, "test_results", lambda record: results)
    [row] = [row for row in study_rows(record) if row.label == "difference"]
    return row.value, row.remark


def test_the_difference_says_whether_it_is_beyond_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    assert difference_row(monkeypatch, 0.02, 0.08) == ("+5.0 points  [+2.0, +8.0]", "better on the test images")
    unknown = "undecided on the test images"
    assert difference_row(monkeypatch, -0.01, 0.11) == ("+5.0 points  [-1.0, +11.0]", unknown)
    assert difference_row(monkeypatch, None, None) == ("+5.0 points", unknown)


def test_a_higher_log_loss_is_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    value, remark = difference_row(monkeypatch, 0.02, 0.08, "log_loss")
    assert (value, remark) == ("+0.050 nats  [+0.020, +0.080]", "worse on the test images")
