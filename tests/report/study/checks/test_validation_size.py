from __future__ import annotations

from dataclasses import replace

import pytest
from scipy.stats import norm

from nbt.checks import FAILED, NOT_APPLICABLE, PASSED
from nbt.report.study.checks.validation_size import _DETECTABLE_HALF_WIDTHS, ValidationSize
from nbt.tuning.intervals import Interval
from tests.report.study.checks.studies import run
from tests.sample_study import config, finals
from tests.sample_study import trials as listed

CHECK = ValidationSize()


def with_interval(low: float, high: float) -> tuple[object, ...]:
    best, *rest = finals()
    mean = (low + high) / 2
    return (replace(best, versus_default=Interval(mean=mean, low=low, high=high, n=5)), *rest[:1])


def test_narrow_intervals_pass() -> None:
    result = run(CHECK)
    assert result.state == PASSED
    assert "0.5 points" in result.message
    assert "suggest +5.1 points for trial 12" in result.message


def test_a_suggested_gain_below_the_detectable_difference_fails() -> None:
    result = run(CHECK, finals=with_interval(-0.04, 0.08))
    assert (result.state, result.severity) == (FAILED, "warning")
    # 1.429 half widths of 6 points; the trials suggest 71.2 - 66.1 points on 299 images.
    assert "8.6 points with 299 validation images, but the trials suggest +5.1 points" in result.message
    assert "about 846 are validated" in result.advice
    assert "--final-seeds" in result.advice


def test_the_detectable_difference_has_a_power_of_four_in_five() -> None:
    half_width = 1.96 * 1.0
    assert norm.sf(half_width, loc=_DETECTABLE_HALF_WIDTHS * half_width) == pytest.approx(0.8, abs=1e-3)


def test_a_difference_that_was_seen_passes() -> None:
    assert run(CHECK, finals=with_interval(0.01, 0.13)).state == PASSED


def test_without_an_interval_it_is_not_applicable() -> None:
    assert run(CHECK, finals=()).state == NOT_APPLICABLE
    best, *rest = finals()
    without_trial = replace(best, trial=None)
    assert run(CHECK, finals=(without_trial, *rest)).state == NOT_APPLICABLE


def test_a_log_loss_is_compared_in_nats() -> None:
    trials = [
        replace(t, curve=tuple(replace(e, val_loss=1 - (e.val_accuracy or 0)) for e in t.curve)) for t in listed()
    ]
    result = run(CHECK, config=config(metric="log_loss"), finals=with_interval(-0.04, 0.08), trials=trials)
    assert result.state == FAILED
    # Losses of .288 and .339; 8.57 points of score above .686, the default recipe's, are ln(.7717 / .686) nats.
    assert "four of five cases is 0.118 nats with 299 validation images" in result.message
    assert "but the trials suggest \N{MINUS SIGN}0.051 nats for trial 12" in result.message
    assert "difference below 0.118 nats" in result.advice
    assert "points" not in result.message + result.advice
