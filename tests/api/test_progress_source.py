"""The progress of runs, one after another and at a time."""

from __future__ import annotations

from typing import Any

from nbt.api._progress_source import ProgressTrialSource
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from tests.tuning.engines.contract import ListSource

KEYS = ("retrain-recommended", "retrain-baseline", "seed-7")


def epoch(number: int) -> EpochResult:
    return EpochResult(number, 1.0, 1.0, 0.5, 0.01)


def test_runs_at_a_time_are_one_activity() -> None:
    lines: list[Any] = []
    specs = [TrialSpec(key=key, settings=TransferSettings(epochs=2), seed=7) for key in KEYS]
    list_source = ListSource(specs)
    source = ProgressTrialSource(list_source, lambda *line: lines.append(line))
    first, second, third = (source.next_trial() for _ in KEYS)
    assert first is not None and second is not None and third is not None
    source.on_epoch(first, epoch(1))
    source.on_epoch(second, epoch(1))
    source.on_epoch(first, epoch(2))
    source.on_done(first, TrialOutcome())
    source.on_epoch(second, epoch(2))
    source.on_abandoned(second)
    source.on_epoch(third, epoch(1))
    recommended, baseline = "retraining with the recommended settings", "retraining with the default recipe"
    assert lines == [
        (recommended, 1, 2),
        (f"{recommended} and with the default recipe", 2, 4),
        (f"{recommended} and with the default recipe", 3, 4),
        (baseline, 2, 2),
        ("training with seed 7", 1, 2),
    ]
    assert list(list_source.done) == ["retrain-recommended"] and list_source.abandoned == ["retrain-baseline"]
    assert len(list_source.epochs) == 5
