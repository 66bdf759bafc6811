import math
from typing import Any

import pytest

from nbt.report.priors.pruning import CONTROL, EXEMPT, STOPPED, coverage, forecast_of, pruning_decision, pruning_results
from nbt.tuning.budget import OUT_OF_EPOCHS, OUT_OF_TIME
from nbt.tuning.intervals import wilson_interval
from nbt.tuning.storage.records import TrialRecord
from tests.sample_study import curve, diverged_curve, empty_study, forecast, sample_study, study_with_priors, trial


def expecting(state: str, accuracy: float = 0.6, *, number: int = 0, epochs: int = 12, **changes: Any) -> TrialRecord:
    return trial(
        number, state, curve=curve(accuracy, epochs=epochs), facts={"forecast": forecast(0.6, **{"last": 4, **changes})}
    )


def test_pruning_results_of_the_sample_study() -> None:
    results = pruning_results(study_with_priors())
    assert {
        decision: [pruned.number for pruned in results.with_decision(decision)]
        for decision in (STOPPED, CONTROL, EXEMPT)
    } == {
        STOPPED: [4, 6, 9, 11, 13, 15, 16],
        CONTROL: [3, 10],
        EXEMPT: [1],
    }
    assert results.epochs_saved == 4 * 10 + 3 * 8
    assert [pruned.beat_incumbent for pruned in results.with_decision(CONTROL)] == [False, True]
    assert results.false_stop_rate == wilson_interval(0.5, 2)
    assert results.coverage == wilson_interval(5 / 6, 6)
    assert results.forecasts
    assert results.stopped_by_budget == 0


def test_other_pruners_have_no_rates() -> None:
    results = pruning_results(sample_study())
    assert (len(results.with_decision(STOPPED)), results.epochs_saved, results.forecasts) == (7, 64, False)
    assert results.false_stop_rate is results.coverage is None
    empty = pruning_results(empty_study())
    assert (empty.decisions, empty.forecasts) == ((), False)


@pytest.mark.parametrize("reason", [OUT_OF_EPOCHS, OUT_OF_TIME])
def test_end_of_the_budget_is_no_pruning(reason: str) -> None:
    results = pruning_results(empty_study(trials=(trial(0, "pruned", curve=curve(0.5, epochs=4), reason=reason),)))
    assert (results.decisions, results.epochs_saved, results.stopped_by_budget) == ((), 0, 1)


def test_controls_without_outcome_do_not_count() -> None:
    cut = expecting("pruned", epochs=6, would_stop=3, control=True)
    results = pruning_results(empty_study(trials=(cut,)))
    (pruned,) = results.decisions
    assert (pruned.decision, pruned.outcome, pruned.beat_incumbent, pruned.epochs_saved) == (CONTROL, None, None, 0)
    assert results.false_stop_rate is None


def test_tie_does_not_beat_the_accuracy_to_beat() -> None:
    # 200 of 299 images; forecasts are stored with four decimals.
    (pruned,) = pruning_results(
        empty_study(trials=(expecting("complete", 0.6689, incumbent=0.6689, would_stop=3, control=True),))
    ).decisions
    assert pruned.beat_incumbent is False
    exact = expecting("complete", incumbent=round(199 / 299, 4), would_stop=3, control=True)
    last = exact.curve[-1].__class__(**{**vars(exact.curve[-1]), "val_accuracy": 199 / 299})
    tied = pruning_decision(TrialRecord(**{**vars(exact), "curve": (*exact.curve[:-1], last)}), 12)
    assert tied is not None
    assert tied.beat_incumbent is False


def test_deciding_forecast_differs_from_the_last_one() -> None:
    results = forecast_of(expecting("complete", last=9, would_stop=3, control=True))
    assert results is not None
    assert (results.deciding.epoch, results.deciding.chance) == (3, 0.02)
    assert results.last.epoch == 9
    assert results.latest_at(5.5) == results.rows[3]
    assert results.latest_at(1) is None


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
def test_damaged_forecast_is_none(stored: Any) -> None:
    damaged = trial(0, "pruned", curve=curve(0.5, epochs=2), facts={"forecast": stored})
    assert forecast_of(damaged) is None
    results = pruning_results(empty_study(trials=(damaged,)))
    assert (len(results.with_decision(STOPPED)), results.forecasts) == (1, False)


def test_missing_fields_of_a_forecast_are_none() -> None:
    whole = {"epoch": 2, "mean": 0.5, "low": 0.4, "high": 0.6, "chance": 0.1}
    results = forecast_of(trial(0, facts={"forecast": whole}))
    assert results is not None
    assert (len(results.rows), results.incumbent, results.would_stop, results.control) == (1, None, None, False)
    assert pruning_decision(trial(0, "pruned", facts={"forecast": whole}), 12).beat_incumbent is None  # type: ignore[union-attr]


def test_forecasts_of_the_fit_pruner_are_read() -> None:
    from nbt.tuning.pruners.fit_pruner import FitPruner, _ForecastHistory
    from nbt.tuning.target import Target

    record = sample_study()
    target = Target.of(record.dataset, None, 12)
    pruner = FitPruner(None, None, target, seed=0, controls=1.0)  # type: ignore[arg-type]
    rows = [[2, 0.5, 0.4, 0.6, 0.1], [3, 0.5, 0.45, 0.55, 0.01]]
    pruner._histories[5] = _ForecastHistory(rows=rows, incumbent=0.7, would_stop=3, control=pruner.is_control(5))
    results = forecast_of(trial(5, facts={"forecast": pruner.forecast(5)}))
    assert results is not None
    assert results.deciding == results.last == (3, 0.5, 0.45, 0.55, 0.01)
    assert (results.incumbent, results.would_stop, results.control) == (0.7, 3, True)
