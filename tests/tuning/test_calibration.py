from __future__ import annotations

import pytest

from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.calibration import MAX_WORKERS, Calibration
from tests.tuning.fakes import FakeEngine


def engine(workers: int, seconds_per_image: float, overhead: float = 0.0) -> FakeEngine:
    def simulate(spec: TrialSpec) -> list[EpochResult]:
        assert spec.max_train_images is not None
        seconds = overhead + seconds_per_image * spec.max_train_images
        return [EpochResult(epoch, 1.0, 1.0, 0.5, seconds * (10.0 if epoch == 1 else 1.0)) for epoch in (1, 2)]

    return FakeEngine(workers=workers, simulate=simulate)


def test_two_batches_suffice_where_epochs_are_long() -> None:
    calibration, slow = Calibration(6400), engine(2, 0.01)
    slow.run(calibration)
    assert [spec.max_train_images for spec in slow.specs] == [64, 64]
    assert calibration.epoch_seconds == pytest.approx(64.0), "the first epoch, ten times as long, does not count"
    assert calibration.workers == 2


def test_short_epochs_are_measured_on_more_images() -> None:
    """Of an epoch on 64 images, 0.1 s are overhead; on 153 images they are a smaller share."""
    calibration, fast = Calibration(1000), engine(1, 0.0004, overhead=0.1)
    fast.run(calibration)
    assert [spec.max_train_images for spec in fast.specs] == [64, 152]
    assert calibration.epoch_seconds == pytest.approx((0.1 + 152 * 0.0004) * 1000 / 152)


def test_few_images_are_all_used() -> None:
    calibration, fast = Calibration(40), engine(1, 0.0001)
    fast.run(calibration)
    assert [spec.max_train_images for spec in fast.specs] == [40]
    assert calibration.epoch_seconds == pytest.approx(0.004)


def test_on_a_large_cluster_only_some_workers_take_part() -> None:
    calibration, large = Calibration(6400), engine(100, 0.01)
    large.run(calibration)
    assert calibration.workers == len(large.specs) == MAX_WORKERS


def test_a_failure_gives_no_duration() -> None:
    calibration = Calibration(6400)
    FakeEngine(outcome=lambda spec, curve: TrialOutcome(error="RuntimeError: no")).run(calibration)
    assert calibration.epoch_seconds is None
