from __future__ import annotations

from dataclasses import replace

from nbt.checks import FAILED, NOT_APPLICABLE, PASSED
from nbt.report.study.checks.optimism import Optimism
from nbt.tuning.intervals import Interval
from tests.report.study.checks.studies import run
from tests.sample_study import config, finals

CHECK = Optimism()


def with_validation(mean: float, low: float | None, high: float | None) -> tuple[object, ...]:
    return (replace(finals()[0], validation=Interval(mean=mean, low=low, high=high, n=5)),)


def test_a_difference_within_the_intervals_passes() -> None:
    result = run(CHECK)
    assert result.state == PASSED
    assert "70.6 %, the test accuracy 69.5 %: +1.1 points" in result.message


def test_a_difference_above_the_intervals_fails() -> None:
    # The test accuracy is 69.5 % with an upper half of 2.57 points; hypot(3, 2.57) = 3.95 points.
    result = run(CHECK, finals=with_validation(0.736, 0.706, 0.766))
    assert (result.state, result.severity) == (FAILED, "warning")
    assert "+4.1 points, more than the 4.0 points" in result.message
    assert run(CHECK, finals=with_validation(0.733, 0.703, 0.763)).state == PASSED


def test_a_validation_below_test_passes() -> None:
    assert run(CHECK, finals=with_validation(0.6, 0.59, 0.61)).state == PASSED


def test_without_test_or_interval_it_is_not_applicable() -> None:
    assert run(CHECK, config=config(metric="macro_f1")).state == NOT_APPLICABLE
    assert run(CHECK, test=()).state == NOT_APPLICABLE
    assert run(CHECK, finals=with_validation(0.8, None, None)).state == NOT_APPLICABLE
