from dataclasses import replace

import pytest

from nbt.report.fit.correlation import MIN_TRIALS, chance_level, comparable_trials, measure_correlations, unit_count
from nbt.settings import TransferSettings
from nbt.tuning.storage.records import StudyRecord
from tests.fit_profiles import profile_dict
from tests.sample_study import EPOCHS, curve, diverged_curve, empty_study, sample_study, trial


def depths(count: int, *, frozen: float = 0.0) -> StudyRecord:
    """Returns trials with increasing transfer depth over five units, whose accuracy rises with the depth."""
    trials = []
    for number in range(count):
        depth = round(0.2 + 0.8 * number / (count - 1), 6)
        settings = TransferSettings(transfer_depth=depth, frozen_depth=min(frozen, depth), epochs=EPOCHS)
        trials.append(trial(number, settings=settings, curve=curve(0.4 + 0.4 * depth)))
    return empty_study(trials=tuple(trials), profile=profile_dict())


def test_measure_that_rises_with_depth_equals_the_baseline() -> None:
    found = {(correlation.measure, correlation.depth): correlation for correlation in measure_correlations(depths(10))}
    ridge = found["ridge_accuracy", "transfer_depth"]
    assert ridge.trials == 10
    assert ridge.tau == ridge.baseline
    assert ridge.tau is not None
    assert ridge.tau > 0.8


def test_measure_can_correlate_better_than_depth() -> None:
    # The best units, and with them the best trials, are at the input and at the top.
    record = depths(10)
    valley = profile_dict(pretrained=(0.6, 0.3, 0.2, 0.4, 0.7), random=(0.1,) * 5)
    trials = []
    for record_trial in record.trials:
        unit = unit_count(record_trial.settings, "transfer_depth", 5)
        accuracy = float(valley["layers"][unit - 1]["ridge_accuracy"])
        trials.append(replace(record_trial, curve=curve(accuracy)))
    found = measure_correlations(replace(record, trials=tuple(trials), profile=valley))[0]
    assert found.tau == pytest.approx(1.0)
    assert found.baseline is not None
    assert abs(found.baseline) < 0.5


def test_constant_values_have_no_correlation() -> None:
    found = {
        (correlation.measure, correlation.depth): correlation
        for correlation in measure_correlations(depths(10, frozen=0.2))
    }
    assert found["logme", "transfer_depth"].tau is None, "all units have the same value"
    assert found["logme", "transfer_depth"].baseline is not None
    frozen = found["ridge_accuracy", "frozen_depth"]
    assert (frozen.tau, frozen.baseline, frozen.trials) == (None, None, 10)
    equal = depths(10)
    alike = replace(equal, trials=tuple(replace(trial_record, curve=curve(0.5)) for trial_record in equal.trials))
    assert measure_correlations(alike)[0].tau is None


def test_trials_that_freeze_nothing_have_no_unit() -> None:
    assert measure_correlations(depths(10))[1].trials == 0


def test_few_trials_have_no_correlation() -> None:
    assert measure_correlations(depths(MIN_TRIALS))[0].tau is not None
    assert measure_correlations(depths(MIN_TRIALS - 1))[0].tau is None


def test_diverged_pruned_and_running_trials_do_not_count() -> None:
    record = depths(10)
    others = (
        trial(20, curve=diverged_curve()),
        trial(21, "pruned", curve=curve(0.9, epochs=3)),
        trial(22, "running", curve=curve(0.9, epochs=3)),
    )
    assert measure_correlations(replace(record, trials=(*record.trials, *others))) == measure_correlations(record)


def test_trials_of_other_backbones_than_that_of_the_profile_do_not_count() -> None:
    record = depths(10)
    other = replace(record.trials[0], number=20, settings=record.trials[0].settings.replace(backbone="conv4"))
    both = replace(record, trials=(*record.trials, other))
    assert comparable_trials(both) == list(record.trials)
    assert comparable_trials(both, "conv4") == [other]
    assert measure_correlations(both, "conv4") == [], "its profile was not measured"
    measured = replace(both, load_profile={"conv4": record.profile}.get)
    assert {found.trials for found in measure_correlations(measured, "conv4")} <= {0, 1}


def test_missing_measures_have_no_rows() -> None:
    names = {correlation.measure for correlation in measure_correlations(depths(10))}
    assert "mean_shift" not in names
    assert {"ridge_accuracy", "gain", "cka_next"} <= names
    assert measure_correlations(sample_study()) == []
    assert measure_correlations(sample_study(profile={"layers": "x"})) == []


def test_depths_are_rounded_as_training_rounds_them() -> None:
    from nbt.transfer.transfer_depth import units_of

    for units in (1, 4, 5, 14, 19):
        for step in range(41):
            share = step / 40
            settings = TransferSettings(transfer_depth=share, frozen_depth=share)
            assert unit_count(settings, "transfer_depth", units) == units_of(share, units)
            assert unit_count(settings, "frozen_depth", units) == units_of(share, units)
    assert unit_count(TransferSettings(transfer_depth=0.2, frozen_depth=0.9), "frozen_depth", 5) == 1


def test_chance_level_falls_with_the_number_of_trials() -> None:
    assert chance_level(8) == pytest.approx(0.566, abs=1e-3)
    assert chance_level(100) < 0.14
