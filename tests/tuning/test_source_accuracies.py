from __future__ import annotations

import random
from dataclasses import replace

import optuna
import pytest

from nbt.tuning.intervals import interval_json, wilson_interval
from nbt.tuning.source_accuracies import source_accuracies, source_front
from nbt.tuning.storage.records import StudyRecord, TrialRecord
from nbt.tuning.storage.source import SourceRecord
from tests.sample_study import curve, diverged_curve, finals, sample_study, trial

SOURCE = SourceRecord(images=60, classes=5, matching="names", references={"": 0.8}, copies=3, near_copies=2)


def study(*points: tuple[float, float | None], more: tuple[TrialRecord, ...] = ()) -> StudyRecord:
    """Returns a study with trials of the given accuracies on target and source."""
    listed = [trial(i, curve=curve(target), source_accuracy=source) for i, (target, source) in enumerate(points)]
    return sample_study(trials=(*listed, *more), source=SOURCE)


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_that_of_optuna(seed: int) -> None:
    rng = random.Random(seed)
    record = study(*((rng.randrange(20) / 20, rng.randrange(20) / 20) for _ in range(60)))
    other = optuna.create_study(directions=["maximize", "maximize"])
    for found in record.trials:
        other.add_trial(optuna.trial.create_trial(values=[found.val_accuracy, found.source_accuracy]))
    front = source_front(record)
    assert {found.number for found in front} == {found.number for found in other.best_trials}
    scores = [found.val_accuracy for found in front]
    assert scores == sorted(scores, reverse=True)


def test_only_measured_full_length_trials_that_did_not_diverge_are_on_the_front() -> None:
    others = (
        trial(7, curve=diverged_curve(), source_accuracy=0.0),
        trial(8, "pruned", curve=curve(0.99, epochs=3)),
        trial(9, "failed", curve=()),
    )
    record = study((0.5, 0.7), (0.9, None), (0.6, 0.2), (0.4, 0.6), more=others)
    assert [found.number for found in source_front(record)] == [2, 0]
    assert source_front(study((0.5, None), (0.6, None))) == []


def test_the_accuracies_of_the_tested_models() -> None:
    recommended, baseline = sample_study().test
    record = sample_study(
        source=SOURCE, test=(replace(recommended, source_accuracy=0.6), replace(baseline, source_accuracy=0.1))
    )
    found = source_accuracies(record)
    assert found is not None
    accuracies = {"reference": 0.8, "recommended": 0.6, "baseline": 0.1}
    intervals = {name: interval_json(wilson_interval(value, 60)) for name, value in accuracies.items()}
    assert intervals["recommended"] == {
        "mean": 0.6,
        "low": pytest.approx(0.4737, abs=1e-4),
        "high": pytest.approx(0.7143, abs=1e-4),
        "n": 60,
    }
    numbers = {"images": 60, "copies": 3, "near_copies": 2}
    assert found.to_json() == {**accuracies, **numbers, "intervals": intervals}
    assert source_accuracies(replace(record, source=None)) is None
    unfinished = source_accuracies(replace(record, test=()))
    assert unfinished is not None and (unfinished.recommended, unfinished.baseline) == (None, None)
    assert unfinished.to_json()["intervals"] == {**intervals, "recommended": None, "baseline": None}


def test_an_accuracy_has_the_interval_of_its_images() -> None:
    found = source_accuracies(sample_study(source=SOURCE))
    assert found is not None and found.interval(0.6) == wilson_interval(0.6, 60)


def test_the_reference_is_that_of_the_recommended_backbone() -> None:
    best, *rest = finals()
    chosen = replace(best, settings=best.settings.replace(backbone="resnet18"))
    record = sample_study(finals=(chosen, *rest), source=replace(SOURCE, references={"": 0.8, "resnet18": 0.3}))
    found = source_accuracies(record)
    assert found is not None and found.reference == 0.3
    found = source_accuracies(replace(record, source=SOURCE))
    assert found is not None and found.reference is None, "its weights have no classifier"
