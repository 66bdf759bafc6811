from __future__ import annotations

import math
from dataclasses import replace

from nbt.checks import FAILED, NOT_APPLICABLE, PASSED, CheckResult
from nbt.report.study.checks.optimism import Optimism
from nbt.tuning.finals.test_results import test_results
from nbt.tuning.intervals import Interval
from tests.report.study.checks.studies import run
from tests.sample_study import config, evaluated_study, finals

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
    without_predictions = run(CHECK, config=config(metric="macro_f1"))
    assert (without_predictions.state, "no test macro F1" in without_predictions.message) == (NOT_APPLICABLE, True)
    assert run(CHECK, test=()).state == NOT_APPLICABLE
    assert run(CHECK, finals=with_validation(0.8, None, None)).state == NOT_APPLICABLE


def with_predictions(metric: str, *validation: float) -> CheckResult:
    """Returns the result of a study with stored predictions; `validation` is in scores."""
    mean, low, high = validation
    return CHECK.run(evaluated_study(config=config(metric=metric), finals=with_validation(mean, low, high)))


def test_a_mean_over_classes_is_compared_with_its_test_value() -> None:
    value = test_results(evaluated_study(config=config(metric="macro_f1"))).recommended.value.mean
    result = with_predictions("macro_f1", value + 0.2, value + 0.18, value + 0.22)
    assert result.state == FAILED
    assert f"the test macro F1 {100 * value:.1f} %: +20.0 points, more than the" in result.message
    assert with_predictions("macro_f1", value - 0.2, value - 0.22, value - 0.18).state == PASSED


def test_a_log_loss_is_optimistic_if_it_is_lower_than_on_the_test_images() -> None:
    loss = test_results(evaluated_study(config=config(metric="log_loss"))).recommended.value.mean
    lower, higher = ([math.exp(-loss + shift + noise) for noise in (0, -0.1, 0.1)] for shift in (1.0, -1.0))
    result = with_predictions("log_loss", *lower)
    assert result.state == FAILED
    assert f"the test log loss {loss:.3f} nats: \N{MINUS SIGN}1.000 nats, more than the" in result.message
    assert with_predictions("log_loss", *higher).state == PASSED
