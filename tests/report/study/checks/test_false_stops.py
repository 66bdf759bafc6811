from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nbt.checks import FAILED, NOT_APPLICABLE, PASSED, CheckResult
from nbt.report.study.checks.false_stops import FalseStops
from nbt.tuning.budget import OUT_OF_EPOCHS
from tests.report.study.checks.studies import run
from tests.sample_study import curve, forecast, forecasts, trial, trials

CHECK = FalseStops()


def with_forecasts(changes: Mapping[int, dict[str, Any]]) -> CheckResult:
    listed = list(trials())
    for number, stored in {**forecasts(), **changes}.items():
        listed[number] = replace(listed[number], facts={"forecast": stored})
    return run(CHECK, trials=tuple(listed), pruner="fit")


def test_few_controls_do_not_show_that_the_pruner_is_wrong() -> None:
    # One of two controls beats the best trial: at a rate of 5 %, that has a probability of 9.8 %.
    result = with_forecasts({})
    assert result.state == PASSED
    assert "7 trials were stopped; 1 of 2 controls beat the best trial" in result.message


def test_controls_that_beat_the_best_trial_fail() -> None:
    # Two of two controls: at a rate of 5 %, that has a probability of .25 %.
    result = with_forecasts({3: forecast(0.5, last=11, incumbent=0.55, would_stop=4, control=True)})
    assert (result.state, result.severity) == (FAILED, "warning")
    assert "2 of 2 controls" in result.message
    assert "--pruner none" in result.advice


def test_forecasts_that_are_too_low_fail() -> None:
    low = {number: forecast(0.5, last=11, incumbent=0.7) for number in (8, 14, 17)}
    result = with_forecasts(low)
    assert result.state == FAILED
    assert "4 of 6 trials that reached half of their epochs ended above" in result.message


def test_trials_that_were_stopped_later_count_as_not_above() -> None:
    """Of the trials that reached half of their epochs, those that went on are the ones that beat their forecasts."""
    stored = forecasts() | {number: forecast(0.5, last=11, incumbent=0.7) for number in (8, 14, 17)}
    listed = [replace(record, facts={"forecast": stored.get(record.number)}) for record in trials()]
    for epochs, counted in ((4, 6), (8, 7)):
        stopped = trial(4, "pruned", curve=curve(0.3, epochs=epochs, seed=4), reason="the forecast is low")
        listed[4] = replace(stopped, facts={"forecast": forecast(0.5, last=epochs, incumbent=0.7)})
        result = run(CHECK, trials=tuple(listed), pruner="fit")
        assert f"4 of {counted} trials that reached half of their epochs ended above" in result.message


def test_without_forecasts_stopped_trials_are_compared_with_the_best_one() -> None:
    result = run(CHECK)
    assert result.state == PASSED
    assert "0 of 7 stopped trials were ahead of trial 12" in result.message
    ahead = trial(4, "pruned", curve=curve(0.9, epochs=4, seed=4), reason="rank 5 of 6 after 4 epochs")
    listed = [ahead if record.number == 4 else record for record in trials()]
    result = run(CHECK, trials=tuple(listed))
    assert (result.state, result.count, result.examples) == (FAILED, 1, ("trial 4",))
    assert "1 of 7 stopped trials was ahead of trial 12" in result.message


def test_without_stopped_trials_it_is_not_applicable() -> None:
    full = tuple(record for record in trials() if record.state == "complete")
    assert run(CHECK, trials=full).state == NOT_APPLICABLE
    by_budget = trial(4, "pruned", curve=curve(0.9, epochs=4), reason=OUT_OF_EPOCHS)
    assert run(CHECK, trials=(*full, by_budget)).state == NOT_APPLICABLE
