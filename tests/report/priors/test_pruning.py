import math
from typing import Any

import pytest

from nbt.report.priors.pruning import CONTROL, EXEMPT, STOPPED, coverage, forecast_of, judge, pruning
from nbt.tuning.budget import OUT_OF_EPOCHS, OUT_OF_TIME
from nbt.tuning.intervals import wilson_interval
from nbt.tuning.storage.records import TrialRecord
from tests.sample_study import curve, diverged_curve, empty_study, forecast, guided_study, sample_study, trial


def expecting(state: str, accuracy: float = 0.6, *, number: int = 0, epochs: int = 12, **said: Any) -> TrialRecord:
    return trial(
        number, state, curve=curve(accuracy, epochs=epochs), facts={"forecast": forecast(0.6, **{"last": 4, **said})}
    )


def test_the_sample_is_counted() -> None:
    found = pruning(guided_study())
    assert {decision: [one.number for one in found.of(decision)] for decision in (STOPPED, CONTROL, EXEMPT)} == {
        STOPPED: [4, 6, 9, 11, 13, 15, 16],
        CONTROL: [3, 10],
        EXEMPT: [1],
    }
    assert found.saved == 4 * 10 + 3 * 8
    assert [one.beat for one in found.of(CONTROL)] == [False, True]
    assert found.false_stop_rate == wilson_interval(0.5, 2)
    assert found.coverage == wilson_interval(5 / 6, 6)
    assert found.forecasts
    assert found.stopped_by_budget == 0


def test_a_study_of_another_pruner_has_stops_and_no_rates() -> None:
    found = pruning(sample_study())
    assert (len(found.of(STOPPED)), found.saved, found.forecasts) == (7, 64, False)
    assert found.false_stop_rate is found.coverage is None
    empty = pruning(empty_study())
    assert (empty.decisions, empty.forecasts) == ((), False)


@pytest.mark.parametrize("reason", [OUT_OF_EPOCHS, OUT_OF_TIME])
def test_the_end_of_the_budget_is_no_pruning(reason: str) -> None:
    found = pruning(empty_study(trials=(trial(0, "pruned", curve=curve(0.5, epochs=4), reason=reason),)))
    assert (found.decisions, found.saved, found.stopped_by_budget) == ((), 0, 1)


def test_a_control_without_an_outcome_is_no_evidence() -> None:
    cut = expecting("pruned", epochs=6, would_stop=3, control=True)
    found = pruning(empty_study(trials=(cut,)))
    (one,) = found.decisions
    assert (one.decision, one.outcome, one.beat, one.saved) == (CONTROL, None, None, 0)
    assert found.false_stop_rate is None


def test_a_tie_does_not_beat_the_accuracy_to_beat() -> None:
    # 200 of 299 images; forecasts are stored with four decimals.
    (one,) = pruning(
        empty_study(trials=(expecting("complete", 0.6689, incumbent=0.6689, would_stop=3, control=True),))
    ).decisions
    assert one.beat is False
    exact = expecting("complete", incumbent=round(199 / 299, 4), would_stop=3, control=True)
    last = exact.curve[-1].__class__(**{**vars(exact.curve[-1]), "val_accuracy": 199 / 299})
    tied = judge(TrialRecord(**{**vars(exact), "curve": (*exact.curve[:-1], last)}), 12)
    assert tied is not None
    assert tied.beat is False


def test_the_forecast_that_decided_is_not_the_last_one() -> None:
    found = forecast_of(expecting("complete", last=9, would_stop=3, control=True))
    assert found is not None
    assert (found.deciding.epoch, found.deciding.chance) == (3, 0.02)
    assert found.last.epoch == 9
    assert found.until(5.5) == found.rows[3]
    assert found.until(1) is None


def test_coverage_counts_the_last_forecast_of_the_first_half() -> None:
    inside, outside = expecting("complete", 0.64), expecting("complete", 0.66)
    late = expecting("complete")
    stored = late.facts["forecast"]
    late = TrialRecord(**{**vars(late), "facts": {"forecast": {**stored, "rows": [[7, 0.6, 0.5, 0.7, 0.2]]}}})
    diverged = trial(0, curve=diverged_curve(), facts={"forecast": forecast(0.6, last=2)})
    stopped = expecting("pruned", would_stop=4)
    assert coverage([inside]) == wilson_interval(1.0, 1)
    assert coverage([outside]) == wilson_interval(0.0, 1)
    assert coverage([late, stopped, trial(1, curve=curve(0.6))]) is None
    assert coverage([inside, outside, late, diverged]) == wilson_interval(1 / 3, 3)


@pytest.mark.parametrize(
    "stored",
    [
        "x",
        {},
        {"rows": "x"},
        {"rows": [[1, 2]]},
        {"rows": [[2, 0.5, 0.4, 0.6, math.nan]]},
        {"rows": [[0, 0.5, 0.4, 0.6, 0.1]]},
        {"rows": [[1e300, 0.5, 0.4, 0.6, 0.1]]},
        {"epoch": 2, "mean": 0.5, "low": 0.4, "high": None, "chance": 0.1},
    ],
)
def test_a_damaged_forecast_is_none(stored: Any) -> None:
    damaged = trial(0, "pruned", curve=curve(0.5, epochs=2), facts={"forecast": stored})
    assert forecast_of(damaged) is None
    found = pruning(empty_study(trials=(damaged,)))
    assert (len(found.of(STOPPED)), found.forecasts) == (1, False)


def test_what_is_missing_of_a_forecast_is_absent() -> None:
    whole = {"epoch": 2, "mean": 0.5, "low": 0.4, "high": 0.6, "chance": 0.1}
    found = forecast_of(trial(0, facts={"forecast": whole}))
    assert found is not None
    assert (len(found.rows), found.incumbent, found.would_stop, found.control) == (1, None, None, False)
    assert judge(trial(0, "pruned", facts={"forecast": whole}), 12).beat is None  # type: ignore[union-attr]


def test_it_reads_what_the_fit_pruner_says() -> None:
    from nbt.tuning.pruners.fit_pruner import FitPruner, _ForecastHistory
    from nbt.tuning.target import Target

    record = sample_study()
    target = Target.of(record.dataset, None, 12)
    pruner = FitPruner(None, [], target, length=12, seed=0, controls=1.0)  # type: ignore[arg-type]
    rows = [[2, 0.5, 0.4, 0.6, 0.1], [3, 0.5, 0.45, 0.55, 0.01]]
    pruner._histories[5] = _ForecastHistory(rows=rows, incumbent=0.7, would_stop=3)
    found = forecast_of(trial(5, facts={"forecast": pruner.forecast(5)}))
    assert found is not None
    assert found.deciding == found.last == (3, 0.5, 0.45, 0.55, 0.01)
    assert (found.incumbent, found.would_stop, found.control) == (0.7, 3, True)
