from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy.special import ndtr

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.pruners import quantile_forest
from nbt.tuning.pruners.curve_forecast import (
    COVERAGE,
    CurveForecaster,
    ForecastDistribution,
    LearningCurve,
    expected_scores,
    forecast_features,
    has_usable_curves,
    probe_logit_score,
    table_curves,
)
from nbt.tuning.surrogate.logit_score import logit_score
from nbt.tuning.target import Target
from tests.tuning.benchmark.tables import diverge, make_table
from tests.tuning.synthetic import (
    BIRDS,
    IMAGES,
    LENGTH,
    draw,
    patch_small_forests,
    source_tables,
    table,
    target,
    target_table,
    transferred_priors,
    trees_target,
)

PROBE = probe_logit_score(trees_target())


@pytest.fixture(scope="module")
def forecaster() -> CurveForecaster:
    forecaster = transferred_priors().forecaster
    assert forecaster is not None
    return forecaster


@pytest.fixture(scope="module")
def curves() -> list[LearningCurve]:
    """Curves of a task that the forecaster has not seen, best first."""
    return sorted(table_curves(target_table(), transferred_priors().experience), key=lambda curve: -curve.end_score)


def flat(accuracy: float, epochs: int = LENGTH, length: int = LENGTH) -> LearningCurve:
    rows = [EpochResult(epoch, 1.0, 1.0, accuracy, 1.0) for epoch in range(1, epochs + 1)]
    return LearningCurve.from_epochs(TransferSettings(), rows, images=IMAGES, total_epochs=length)


class TestCurve:
    def test_logit_scores_and_log_losses(self) -> None:
        rows = [EpochResult(1, 2.0, 3.0, 0.4, 1.0), EpochResult(2, 1.0, 2.0, 0.6, 1.0)]
        curve = LearningCurve.from_epochs(TransferSettings(), rows, images=IMAGES, total_epochs=5, expected_score=0.7)
        assert curve.logit_scores == pytest.approx(logit_score([0.4, 0.6], IMAGES))
        assert curve.log_train_loss == pytest.approx(np.log([2.0, 1.0])) and curve.log_val_loss == pytest.approx(
            np.log([3.0, 2.0])
        )
        assert (curve.total_epochs, curve.expected_score) == (5, 0.7)

    def test_the_last_epoch_counts(self) -> None:
        rows = [EpochResult(epoch, 1.0, 1.0, accuracy, 1.0) for epoch, accuracy in ((1, 0.4), (2, 0.8), (3, 0.6))]
        curve = LearningCurve.from_epochs(TransferSettings(), rows, images=IMAGES, total_epochs=3)
        assert curve.end_score == pytest.approx(logit_score(0.6, IMAGES))
        assert curve.until(1).end_score == pytest.approx(logit_score(0.4, IMAGES))

    def test_a_truncated_curve_keeps_the_total_epochs(self) -> None:
        curve = flat(0.5)
        part = curve.until(4)
        assert len(part.logit_scores) == len(part.log_train_loss) == len(part.log_val_loss) == 4
        assert (part.total_epochs, part.settings, part.expected_score) == (LENGTH, curve.settings, curve.expected_score)

    def test_missing_or_infinite_losses_are_clipped(self) -> None:
        curve = LearningCurve.from_epochs(
            TransferSettings(), [EpochResult(1, math.inf, None, None, 1.0)], images=IMAGES, total_epochs=3
        )
        assert curve.log_train_loss[0] == curve.log_val_loss[0] == math.log(20.0)
        assert np.isfinite(curve.logit_scores).all()

    def test_diverged_runs_have_no_curve(self) -> None:
        recorded = make_table(12, change=lambda run: diverge(run) if run.setting < 3 else run)
        assert len(table_curves(recorded, None)) == sum(run.setting >= 3 for run in recorded.runs)
        assert {curve.expected_score for curve in table_curves(recorded, None)} == {0.0}
        assert all(curve.expected_score != 0.0 for curve in table_curves(recorded, transferred_priors().experience))

    def test_the_expected_score_is_the_prediction_for_the_task(self) -> None:
        settings, experience = draw(5), transferred_priors().experience
        assert experience is not None
        expected = experience.for_target(trees_target()).predict(settings)
        assert list(expected_scores(experience, trees_target())(settings)) == list(expected)
        assert list(expected_scores(None, trees_target())(settings)) == [0.0] * 5


class TestFeatures:
    def test_features_are_finite_at_every_epoch(self) -> None:
        for length in (1, 2, 3, 5, 12, 40):
            reference = flat(0.8, length, length)
            for epoch in range(1, length + 1):
                for probe in (PROBE, math.nan):
                    assert np.isfinite(forecast_features(flat(0.5, epoch, length), reference, probe)).all()

    def test_curves_may_have_different_epochs(self) -> None:
        rising = [EpochResult(epoch, 1.0, 1.0, 0.1 * epoch, 1.0) for epoch in range(1, 9)]
        long = LearningCurve.from_epochs(TransferSettings(), rising, images=IMAGES, total_epochs=8)
        short = LearningCurve.from_epochs(TransferSettings(), rising[1::2], images=IMAGES, total_epochs=4)
        assert forecast_features(short.until(2), long, PROBE)[:3] == pytest.approx([0.5, 0.0, 0.0])

    def test_later_epochs_of_the_curve_have_no_effect(self, curves: list[LearningCurve]) -> None:
        curve, reference = curves[10], curves[0]
        changed = dataclasses.replace(curve, logit_scores=np.r_[curve.logit_scores[:5], np.full(LENGTH - 5, 99.0)])
        assert forecast_features(changed.until(5), reference, PROBE) == forecast_features(
            curve.until(5), reference, PROBE
        )

    def test_a_short_reference_is_used_up_to_its_end(self) -> None:
        cut = dataclasses.replace(flat(0.8, 6), total_epochs=LENGTH)
        assert np.isfinite(forecast_features(flat(0.5, 10), cut, PROBE)).all()


class TestDistribution:
    D = ForecastDistribution(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.1, 0.2, 0.3, 0.4]))

    def test_mean_quantiles_and_probabilities(self) -> None:
        assert self.D.mean == pytest.approx(3.0)
        assert [self.D.quantile(share) for share in (0.0, 0.05, 0.25, 0.5, 0.95, 1.0)] == [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]
        assert (self.D.probability_above(2.0), self.D.probability_above(0.0), self.D.probability_above(4.0)) == (
            pytest.approx(0.7),
            pytest.approx(1.0),
            0.0,
        )
        assert self.D.probability_below(2.0) == pytest.approx(0.1), "an equal value is neither above nor below"

    def test_an_error_of_the_value_smooths_the_probability(self) -> None:
        assert self.D.probability_above(2.5, 1e-9) == pytest.approx(self.D.probability_above(2.5))
        assert self.D.probability_above(4.5, 1.0) == pytest.approx(
            float(ndtr([-3.5, -2.5, -1.5, -0.5]) @ self.D.weights)
        )
        assert (
            self.D.probability_above(4.5)
            == 0
            < self.D.probability_above(4.5, 0.2)
            < self.D.probability_above(4.5, 1.0)
            < 0.5
        )

    def test_a_mixture_is_sorted(self) -> None:
        mixed = ForecastDistribution.mixture(
            [(np.array([5.0, 1.0]), np.array([0.25, 0.25])), (np.array([3.0]), np.array([0.5]))]
        )
        assert list(mixed.values) == [1.0, 3.0, 5.0]
        assert list(mixed.weights) == [0.25, 0.5, 0.25]


class TestForecast:
    def test_it_is_a_distribution(self, forecaster: CurveForecaster, curves: list[LearningCurve]) -> None:
        for references in (curves[:1], curves[:3]):
            forecast = forecaster.forecast(curves[20].until(4), references, PROBE)
            assert forecast.weights.sum() == pytest.approx(1.0) and (forecast.weights > 0).all()
            assert (np.diff(forecast.values) >= 0).all()

    def test_a_curve_may_end_below_the_score_reached(
        self, forecaster: CurveForecaster, curves: list[LearningCurve]
    ) -> None:
        part = curves[1].until(LENGTH - 2)
        forecast = forecaster.forecast(part, curves[:3], PROBE)
        assert forecast.values.min() < part.end_score < forecast.values.max()

    def test_a_curve_above_the_best_probably_beats_it(
        self, forecaster: CurveForecaster, curves: list[LearningCurve]
    ) -> None:
        chances = [
            forecaster.forecast(flat(0.99, epoch), curves[:3], PROBE).probability_above(curves[0].end_score)
            for epoch in (3, 10)
        ]
        assert chances[0] > 0.3 and chances[1] > 0.8

    def test_a_better_curve_has_a_better_forecast(
        self, forecaster: CurveForecaster, curves: list[LearningCurve]
    ) -> None:
        for epoch in (3, 6, 9):
            promising, unpromising = (
                forecaster.forecast(curve.until(epoch), curves[:3], PROBE) for curve in (curves[3], curves[-3])
            )
            assert promising.mean > unpromising.mean + 1.0
            assert promising.probability_above(curves[0].end_score) > unpromising.probability_above(curves[0].end_score)

    def test_errors_are_below_those_of_the_score_reached_and_largest_early(
        self, forecaster: CurveForecaster, curves: list[LearningCurve]
    ) -> None:
        errors = {}
        for epoch in (2, 6, 10):
            rest = curves[3:]
            forecasts = [forecaster.forecast(curve.until(epoch), curves[:3], PROBE).mean for curve in rest]
            ends = np.array([curve.end_score for curve in rest])
            errors[epoch] = np.abs(forecasts - ends).mean()
            assert errors[epoch] < np.abs([curve.until(epoch).end_score for curve in rest] - ends).mean()
        assert errors[2] > max(errors[6], errors[10])

    def test_it_is_deterministic(self, forecaster: CurveForecaster, curves: list[LearningCurve]) -> None:
        with patch_small_forests():
            refitted = CurveForecaster.fit(source_tables())
        first, second = (model.forecast(curves[9].until(5), curves[:3], PROBE) for model in (forecaster, refitted))
        assert (first.values == second.values).all() and (first.weights == second.weights).all()


class TestCalibration:
    """Calibration on a task that the forecaster has not seen."""

    def covered(self, forecaster: CurveForecaster, curves: list[LearningCurve], shift: float = 0.0) -> list[bool]:
        covered = []
        for curve in curves[3:]:
            for epoch in (2, 4, 6, 8, 10):
                low, high = forecaster.interval(forecaster.forecast(curve.until(epoch), curves[:3], PROBE))
                covered.append(low <= curve.end_score + shift <= high)
        return covered

    def test_intervals_have_their_nominal_coverage(
        self, forecaster: CurveForecaster, curves: list[LearningCurve]
    ) -> None:
        assert COVERAGE == 0.8
        assert 0.68 <= np.mean(self.covered(forecaster, curves)) <= 0.92
        assert np.mean(self.covered(forecaster, curves, shift=3.0)) < 0.3, "the intervals are not too wide"

    def test_the_probability_of_beating_the_best_is_calibrated(
        self, forecaster: CurveForecaster, curves: list[LearningCurve]
    ) -> None:
        incumbent = curves[8]
        probabilities, beaten = [], []
        for curve in curves:
            if curve is not incumbent:
                forecast = forecaster.forecast(curve.until(4), [incumbent], PROBE)
                probabilities.append(forecast.probability_above(incumbent.end_score))
                beaten.append(curve.end_score > incumbent.end_score)
        assert np.mean(probabilities) == pytest.approx(np.mean(beaten), abs=0.15)
        order = np.argsort(probabilities)
        assert not any(beaten[i] for i in order[:10])

    def test_intervals_are_in_order(self, forecaster: CurveForecaster, curves: list[LearningCurve]) -> None:
        forecast = forecaster.forecast(curves[15].until(3), curves[:3], PROBE)
        low, high = forecaster.interval(forecast)
        assert low < forecast.mean < high
        assert 0.0 < forecaster.level < 0.5


class TestExperience:
    def test_a_single_table_is_enough(self, curves: list[LearningCurve]) -> None:
        with patch_small_forests():
            forecaster = CurveForecaster.fit(source_tables()[:1])
        forecast = forecaster.forecast(curves[-1].until(6), curves[:3], PROBE)
        assert forecast.probability_above(curves[0].end_score) < 0.2

    def test_tables_without_curves_are_ignored(self, curves: list[LearningCurve]) -> None:
        broken = make_table(14, change=diverge, dataset="broken", data_hash="broken")
        with patch_small_forests():
            forecaster = CurveForecaster.fit([broken, *source_tables()[:2]])
        assert forecaster.forecast(curves[-1].until(6), curves[:3], PROBE).weights.sum() == pytest.approx(1.0)

    def test_tables_with_usable_curves(self) -> None:
        assert has_usable_curves(source_tables()[0])
        assert not has_usable_curves(make_table(14, change=diverge))
        assert not has_usable_curves(table(BIRDS, 14, length=1))
        assert not has_usable_curves(table(BIRDS, 0))

    def test_accuracies_on_test_images_are_not_read(self, curves: list[LearningCurve]) -> None:
        """A replay measures regret with them."""
        changed_tables = [
            dataclasses.replace(
                recorded,
                runs=[
                    dataclasses.replace(
                        run, curve=tuple(dataclasses.replace(row, watched_accuracy=0.5) for row in run.curve)
                    )
                    for run in recorded.runs
                ],
            )
            for recorded in source_tables()
        ]
        with patch_small_forests():
            refitted = CurveForecaster.fit(changed_tables)
        forecaster = transferred_priors().forecaster
        assert forecaster is not None
        first, second = (model.forecast(curves[9].until(5), curves[:3], PROBE) for model in (forecaster, refitted))
        assert (first.values == second.values).all()


def test_probe_logit_score() -> None:
    assert probe_logit_score(target(0.6)) == pytest.approx(logit_score(0.6, IMAGES))
    assert math.isnan(probe_logit_score(Target(epochs=LENGTH)))


def test_the_synthetic_task_is_not_trivial() -> None:
    """If early accuracies determined the final ones, these tests would have little power."""
    from scipy.stats import spearmanr

    early = [run.curve[1].val_accuracy for run in target_table().runs]
    assert 0.2 < spearmanr(early, [run.val_accuracy for run in target_table().runs]).statistic < 0.97


def test_there_may_be_more_tables_than_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantile_forest, "_NUM_TREES", 2)
    assert 0.0 < CurveForecaster.fit(source_tables()).level < 0.5
