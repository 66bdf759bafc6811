from __future__ import annotations

from dataclasses import replace

import pytest

from nbt.checks import FAILED, NOT_APPLICABLE, PASSED
from nbt.report.study.checks.no_difference import NoDifference
from nbt.tuning.finals.test_results import test_results
from nbt.tuning.intervals import Interval
from tests.report.study.checks.studies import run
from tests.sample_study import config, evaluated_study, finals

CHECK = NoDifference()


def test_a_difference_beyond_noise_passes() -> None:
    result = run(CHECK)
    assert (result.state, result.severity) == (PASSED, "info")
    assert result.message == "Trial 12 and the default recipe differ by +4.5 points over 5 final runs (+4.1 to +4.9)."


def test_an_interval_with_0_fails() -> None:
    best, *rest = finals()
    wide = replace(best, versus_default=Interval(mean=0.01, low=-0.005, high=0.025, n=5))
    result = run(CHECK, finals=(wide, *rest))
    assert result.state == FAILED
    assert "+1.0 points over 5 final runs" in result.message
    assert "contains 0" in result.message
    assert "--final-seeds" in result.advice
    assert "--budget" in result.advice
    few = replace(best, versus_default=Interval(mean=0.01, low=-0.005, high=0.025, n=3))
    advice = run(CHECK, finals=(few, *rest)).advice
    assert advice == "Search with a larger --budget, which allows more final runs, too.", "3 of 5: the time limits them"


def test_a_recommendation_that_is_worse_on_the_test_images_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    results = test_results(evaluated_study())
    assert results is not None
    for low, high, expected in ((-0.079, -0.011, (FAILED, "warning")), (-0.05, 0.02, (PASSED, "info"))):
        worse = replace(results, difference=Interval(mean=(low + high) / 2, low=low, high=high, n=900))
        monkeypatch.setattr("nbt.report.study.checks.no_difference.test_results", lambda record, found=worse: found)
        result = run(CHECK)
        assert (result.state, result.severity) == expected
        assert ("worse than the default recipe" in result.message) == (expected[0] == FAILED)


def test_one_sentence_joins_final_runs_that_show_nothing_with_a_worse_test(monkeypatch: pytest.MonkeyPatch) -> None:
    results = test_results(evaluated_study())
    assert results is not None
    worse = replace(results, difference=Interval(mean=-0.045, low=-0.079, high=-0.011, n=900))
    monkeypatch.setattr("nbt.report.study.checks.no_difference.test_results", lambda record: worse)
    best, *rest = finals()
    unclear = replace(best, versus_default=Interval(mean=-0.002, low=-0.012, high=0.008, n=5))
    result = run(CHECK, finals=(unclear, *rest))
    assert result.severity == "warning"
    assert (
        "too little to tell them apart and to choose otherwise, but on the test images, the recommendation is worse"
        in (result.message)
    )


def test_the_default_recipe_as_recommendation_fails() -> None:
    result = run(CHECK, recommended="default recipe")
    assert result.state == FAILED
    assert "--budget" in result.advice


def test_one_seed_cannot_show_a_difference() -> None:
    best, *rest = finals()
    single = replace(best, versus_default=Interval(mean=0.045, low=None, high=None, n=1))
    result = run(CHECK, finals=(single, *rest))
    assert result.state == FAILED
    assert "+4.5 points" in result.message


def test_without_finals_it_is_not_applicable() -> None:
    assert run(CHECK, finals=(), recommended=None).state == NOT_APPLICABLE
    best = finals()[0]
    assert run(CHECK, finals=(replace(best, versus_default=None),)).state == NOT_APPLICABLE


def test_a_log_loss_is_compared_in_nats() -> None:
    # Scores are exp(-loss): a mean of .706 against .661 is -ln(.706 / .661) = -.066 nats.
    result = run(CHECK, config=config(metric="log_loss"))
    assert result.state == PASSED
    assert (
        "differ by \N{MINUS SIGN}0.066 nats over 5 final runs (\N{MINUS SIGN}0.071 to \N{MINUS SIGN}0.061)"
        in result.message
    )
    assert "points" not in result.message
