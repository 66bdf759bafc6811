from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import optuna
import pytest

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.pruners import fit_pruner
from nbt.tuning.pruners.base import ForecastingPruner, TrialContext
from nbt.tuning.pruners.curve_forecast import CurveForecaster, ForecastDistribution, LearningCurve
from nbt.tuning.pruners.fit_pruner import DEFAULT_CONTROL_FRACTION, DEFAULT_THRESHOLD, FitPruner
from nbt.tuning.storage.reader import read_trial
from nbt.tuning.surrogate.logit_score import accuracy_from_logit_score
from nbt.tuning.target import Target
from tests.tuning.synthetic import (
    IMAGES,
    LENGTH,
    TREES,
    add,
    draw,
    make_study,
    record,
    target,
    transferred_priors,
    trees_target,
)

RECIPES = sorted(draw(60, seed=21), key=TREES.true_logit)
BEST, GOOD, BAD = RECIPES[-3:], RECIPES[-4], RECIPES[5]
FIRST = 2  # a sixth of 12 epochs


def make_fit_pruner(seed: int = 0, *, on: Target | None = None, **options: float) -> FitPruner:
    transferred = transferred_priors()
    assert transferred.forecaster is not None
    return FitPruner(transferred.forecaster, transferred.experience, on or trees_target(), seed=seed, **options)


def study_with_trials(recipes: Sequence[TransferSettings] = BEST) -> optuna.Study:
    """Returns a study with complete trials, by default of the best recipes."""
    study = make_study()
    for recipe in recipes:
        add(study, recipe, TREES.curve(recipe))
    return study


def run_pruner(
    pruner: FitPruner,
    study: optuna.Study,
    settings: TransferSettings,
    curve: Sequence[EpochResult] | None = None,
    number: int | None = None,
) -> list[str | None]:
    """Returns a pruner's decisions after each epoch but the last."""
    number = add(study, settings, state="running") if number is None else number
    rows = tuple(curve or TREES.curve(settings))
    return [
        pruner.decide(TrialContext(study=study, number=number, settings=settings, curve=rows[:epoch]))
        for epoch in range(1, min(len(rows), LENGTH - 1) + 1)
    ]


def constant_curve(accuracy: float, epochs: int = LENGTH) -> tuple[EpochResult, ...]:
    return tuple(EpochResult(epoch, 3.0, 3.0, accuracy, 1.0) for epoch in range(1, epochs + 1))


def first_stop(reasons: Sequence[str | None]) -> int | None:
    """Returns the first epoch at which a trial should stop."""
    return next((epoch for epoch, reason in enumerate(reasons, start=1) if reason is not None), None)


class TestDecision:
    def test_an_unpromising_trial_is_stopped_and_a_promising_one_is_not(self) -> None:
        study = study_with_trials()
        pruner = make_fit_pruner(controls=0.0)
        assert first_stop(run_pruner(pruner, study, BAD)) is not None
        assert first_stop(run_pruner(pruner, study, GOOD)) is None
        assert first_stop(run_pruner(pruner, study, BEST[-1], TREES.curve(BEST[-1], seed=7))) is None

    def test_the_worse_half_is_stopped_early_and_none_of_the_best(self) -> None:
        study = study_with_trials(RECIPES[42:45])
        pruner = make_fit_pruner(controls=0.0)
        ends = [first_stop(run_pruner(pruner, study, recipe)) or LENGTH for recipe in RECIPES[:30]]
        assert np.mean(ends) < 0.7 * LENGTH
        assert all(first_stop(run_pruner(pruner, study, recipe)) is None for recipe in BEST)

    def test_never_before_a_sixth_of_the_epochs(self) -> None:
        study = study_with_trials()
        ends = [
            first_stop(run_pruner(make_fit_pruner(controls=0.0), study, recipe, constant_curve(0.01)))
            for recipe in RECIPES[:5]
        ]
        assert set(ends) == {FIRST}
        pruner = make_fit_pruner(threshold=1.1, controls=0.0)
        assert first_stop(run_pruner(pruner, study, GOOD)) == FIRST, "not even with a threshold that stops everything"

    @pytest.mark.parametrize(("length", "first"), [(2, 1), (6, 1), (7, 2), (12, 2), (13, 3), (60, 10)])
    def test_the_first_epoch_follows_from_the_length(self, length: int, first: int) -> None:
        pruner = make_fit_pruner(threshold=1.1, controls=0.0)
        rows, settings = constant_curve(0.01, length), BAD.replace(epochs=length)
        study = make_study()
        add(study, GOOD, constant_curve(0.9, length))
        number = add(study, BAD, state="running")
        reasons = [
            pruner.decide(TrialContext(study=study, number=number, settings=settings, curve=rows[:epoch]))
            for epoch in range(1, length + 1)
        ]
        assert first_stop(reasons) == first
        assert reasons[-1] is None, "the last epoch is never decided"

    def test_curves_of_different_lengths_are_compared_by_their_position(self) -> None:
        pruner, study = make_fit_pruner(controls=0.0), study_with_trials()
        long = BEST[-1].replace(epochs=2 * LENGTH)
        curve = TREES.curve(BEST[-1], seed=7)
        stretched = tuple(replace(curve[epoch // 2], epoch=epoch + 1) for epoch in range(2 * LENGTH))
        number = add(study, long, state="running")
        chances = []
        for epoch in (LENGTH // 2, LENGTH):
            context = TrialContext(study=study, number=number, settings=long, curve=stretched[:epoch])
            assert pruner.decide(context) is None
            forecast = pruner.forecast(number)
            assert forecast is not None
            chances.append(forecast["rows"][-1][1])
        same = make_fit_pruner(controls=0.0)
        number = add(study, BEST[-1], state="running")
        for epoch in (LENGTH // 4, LENGTH // 2):
            context = TrialContext(study=study, number=number, settings=BEST[-1], curve=curve[:epoch])
            same.decide(context)
        forecast = same.forecast(number)
        assert forecast is not None
        assert chances == pytest.approx([row[1] for row in forecast["rows"]], abs=0.05)

    def test_never_without_a_finished_reference(self) -> None:
        pruner, study = make_fit_pruner(threshold=1.1, controls=0.0), make_study()
        add(study, GOOD, TREES.curve(GOOD, epochs=6), state="pruned")
        add(study, GOOD, TREES.curve(GOOD, epochs=6), state="failed")
        add(study, GOOD, TREES.curve(GOOD, epochs=11), state="running")
        diverged = EpochResult(2, float("inf"), None, None, 1.0, diverged=True)
        add(study, GOOD, (TREES.curve(GOOD)[0], diverged))
        assert first_stop(run_pruner(pruner, study, BAD, constant_curve(0.01))) is None
        assert pruner.forecast(4) is None
        add(study, GOOD, TREES.curve(GOOD))
        assert first_stop(run_pruner(pruner, study, BAD, constant_curve(0.01))) == FIRST

    def test_a_trial_above_the_best_continues(self) -> None:
        pruner, study = make_fit_pruner(controls=0.0), study_with_trials()
        assert first_stop(run_pruner(pruner, study, BAD, constant_curve(0.95))) is None

    def test_the_reason_is_a_sentence_with_numbers(self) -> None:
        pruner, study = make_fit_pruner(controls=0.0), study_with_trials()
        reasons = run_pruner(pruner, study, BAD, constant_curve(0.05))
        forecast = pruner.forecast(3)
        assert forecast is not None
        [row] = [row for row in forecast["rows"] if row[0] == FIRST]
        _, mean, low, high, chance = row
        assert reasons[FIRST - 1] == (
            f"epoch 2: the forecast is {100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}] and the chance of "
            f"beating {100 * forecast['incumbent']:.1f} % is {100 * chance:.1f} %"
        )

    def test_a_higher_threshold_stops_earlier(self) -> None:
        study = study_with_trials()
        high, low = (make_fit_pruner(threshold=threshold, controls=0.0) for threshold in (0.3, 0.01))
        ends = [
            [first_stop(run_pruner(pruner, study, recipe)) or LENGTH for recipe in RECIPES[:25]]
            for pruner in (high, low)
        ]
        assert all(early <= late for early, late in zip(*ends, strict=True))
        assert np.mean(ends[0]) < np.mean(ends[1])

    def test_default_threshold_and_control_fraction(self) -> None:
        assert DEFAULT_THRESHOLD == DEFAULT_CONTROL_FRACTION == 0.05

    def test_a_target_without_profile_is_enough(self) -> None:
        pruner = make_fit_pruner(on=Target(epochs=LENGTH), controls=0.0)
        study = study_with_trials()
        assert first_stop(run_pruner(pruner, study, BAD, constant_curve(0.05))) == FIRST
        assert first_stop(run_pruner(pruner, study, BEST[-1])) is None


class TestReferences:
    def spy(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[LearningCurve, Sequence[LearningCurve]]]:
        calls: list[tuple[LearningCurve, Sequence[LearningCurve]]] = []
        forecast = CurveForecaster.forecast

        def recording_forecast(
            self: CurveForecaster, curve: LearningCurve, references: Sequence[LearningCurve], probe: float
        ) -> ForecastDistribution:
            calls.append((curve, references))
            return forecast(self, curve, references, probe)

        monkeypatch.setattr(CurveForecaster, "forecast", recording_forecast)
        return calls

    def test_references_are_the_best_three_trials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = self.spy(monkeypatch)
        study = study_with_trials(RECIPES[20:40])
        run_pruner(make_fit_pruner(), study, BAD, constant_curve(0.05, FIRST))
        [(curve, references)] = calls
        finals = sorted((TREES.curve(recipe)[-1].val_accuracy or 0.0 for recipe in RECIPES[20:40]), reverse=True)
        assert accuracy_from_logit_score([reference.end_score for reference in references], IMAGES) == pytest.approx(
            finals[:3]
        )
        assert (len(curve.logit_scores), curve.total_epochs) == (FIRST, LENGTH)

    def test_each_finished_trial_is_read_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The cost of a decision must not grow with the number of finished trials."""
        calls, read = self.spy(monkeypatch), []

        def count(trial: optuna.trial.FrozenTrial):  # type: ignore[no-untyped-def]
            read.append(trial.number)
            return read_trial(trial)

        monkeypatch.setattr(fit_pruner, "read_trial", count)
        study, pruner = study_with_trials(RECIPES[20:60]), make_fit_pruner(controls=0.0)
        for recipe in RECIPES[:5]:
            run_pruner(pruner, study, recipe)
        assert sorted(read) == list(range(40))
        assert {len(references) for _, references in calls} == {3}

    def test_later_finished_trials_become_references(self) -> None:
        pruner, study = make_fit_pruner(controls=0.0), study_with_trials(RECIPES[:1])
        number = add(study, RECIPES[30], state="running")
        curve = TREES.curve(RECIPES[30])

        def chance() -> float:
            pruner.decide(TrialContext(study=study, number=number, settings=RECIPES[30], curve=curve[:6]))
            forecast = pruner.forecast(number)
            assert forecast is not None
            return float(forecast["chance"])

        before = chance()
        for recipe in BEST:
            add(study, recipe, constant_curve(0.97))
        assert chance() < before / 2

    def test_the_accuracy_to_beat_has_a_standard_error(self) -> None:
        def chance(accuracy: float, images: int) -> float:
            pruner, study = make_fit_pruner(controls=0.0, on=target(validation_images=images)), make_study()
            for recipe in BEST:
                add(study, recipe, constant_curve(accuracy))
            run_pruner(pruner, study, GOOD, constant_curve(0.9, 6), number=add(study, GOOD, state="running"))
            forecast = pruner.forecast(3)
            assert forecast is not None
            return float(forecast["chance"])

        assert chance(1.0, 20) > chance(1.0, 20000)
        assert chance(1.0, 50) > 0.05, "a perfect accuracy on few images does not stop a trial that is nearly as good"


class TestControls:
    def test_controls_continue_and_are_marked(self) -> None:
        study = study_with_trials()
        pruner = make_fit_pruner(controls=1.0)
        number = len(study.get_trials())
        assert first_stop(run_pruner(pruner, study, BAD, constant_curve(0.05))) is None
        forecast = pruner.forecast(number)
        assert forecast is not None and (forecast["would_stop"], forecast["control"]) == (FIRST, True)
        assert [row[0] for row in forecast["rows"]] == list(range(FIRST, LENGTH)), "forecasts continue to the end"

    def test_a_promising_trial_is_no_control(self) -> None:
        study = study_with_trials()
        pruner = make_fit_pruner(controls=1.0)
        number = len(study.get_trials())
        run_pruner(pruner, study, BEST[-1])
        forecast = pruner.forecast(number)
        assert forecast is not None and (forecast["would_stop"], forecast["control"]) == (None, False)

    def test_the_control_fraction_and_its_seed(self) -> None:
        first, repeated, other = (
            [make_fit_pruner(seed).is_control(number) for number in range(2000)] for seed in (3, 3, 4)
        )
        assert first == repeated != other
        assert np.mean(first) == pytest.approx(DEFAULT_CONTROL_FRACTION, abs=0.02)

    def test_controls_depend_on_the_seed_only(self) -> None:
        seed = next(seed for seed in range(1000) if make_fit_pruner(seed).is_control(3))
        pruner, study = make_fit_pruner(seed), study_with_trials()
        assert first_stop(run_pruner(pruner, study, BAD, constant_curve(0.05))) is None, "trial 3"
        reasons = run_pruner(pruner, study, BAD, constant_curve(0.05))
        assert (first_stop(reasons) is None) == make_fit_pruner(seed).is_control(4)

    def test_without_controls(self) -> None:
        assert not any(make_fit_pruner(controls=0.0).is_control(number) for number in range(200))


class TestForecast:
    def test_it_has_json_types_and_all_parts(self) -> None:
        pruner, study = make_fit_pruner(controls=0.0), study_with_trials()
        run_pruner(pruner, study, GOOD)
        forecast = pruner.forecast(3)
        assert forecast is not None and json.loads(json.dumps(forecast)) == forecast
        assert set(forecast) == {
            *("epoch", "mean", "low", "high", "chance", "incumbent", "would_stop", "control", "rows")
        }
        assert forecast["rows"][-1] == [forecast[name] for name in ("epoch", "mean", "low", "high", "chance")]
        assert [row[0] for row in forecast["rows"]] == list(range(FIRST, LENGTH))
        best = max(row.val_accuracy or 0.0 for recipe in BEST for row in TREES.curve(recipe))
        assert forecast["incumbent"] == pytest.approx(best, abs=1e-4)

    def test_forecasts_are_bounded(self) -> None:
        pruner, study = make_fit_pruner(controls=1.0), study_with_trials()
        for recipe in RECIPES[::10]:
            number = len(study.get_trials())
            run_pruner(pruner, study, recipe)
            forecast = pruner.forecast(number)
            assert forecast is not None
            for _, mean, low, high, chance in forecast["rows"]:
                assert 0.0 <= low <= high <= 1.0 and 0.0 <= mean <= 1.0 and 0.0 <= chance <= 1.0

    def test_trials_without_decision_have_no_forecast(self) -> None:
        pruner, study = make_fit_pruner(), study_with_trials()
        assert pruner.forecast(99) is None
        run_pruner(pruner, study, BAD, constant_curve(0.05, FIRST - 1))
        assert pruner.forecast(3) is None

    def test_records_read_the_forecast(self) -> None:
        pruner, study = make_fit_pruner(), study_with_trials()
        run_pruner(pruner, study, GOOD)
        forecast = pruner.forecast(3)
        assert forecast is not None
        assert record(3, GOOD, TREES.curve(GOOD), forecast=forecast).forecast == forecast
        assert isinstance(pruner, ForecastingPruner)

    def test_the_accuracy_to_beat_is_that_of_the_time_of_the_stop(self) -> None:
        pruner, study = make_fit_pruner(controls=1.0), study_with_trials(RECIPES[40:43])
        number = add(study, BAD, state="running")
        rows = constant_curve(0.05)
        for epoch in range(1, LENGTH):
            if epoch == 6:
                add(study, GOOD, constant_curve(0.97))
            pruner.decide(TrialContext(study=study, number=number, settings=BAD, curve=rows[:epoch]))
        forecast = pruner.forecast(number)
        assert forecast is not None and forecast["would_stop"] == FIRST and forecast["incumbent"] < 0.9


class TestResumed:
    def test_repeated_epochs_replace_their_forecasts(self) -> None:
        pruner, study = make_fit_pruner(controls=0.0), study_with_trials()
        first = run_pruner(pruner, study, GOOD)
        again = run_pruner(pruner, study, GOOD, TREES.curve(GOOD, seed=5, epochs=6), number=3)
        assert len(first) == LENGTH - 1 and len(again) == 6
        forecast = pruner.forecast(3)
        assert forecast is not None
        assert [row[0] for row in forecast["rows"]] == list(range(FIRST, 7)), "those of the newest attempt"

    def test_repeated_epochs_have_the_same_decisions(self) -> None:
        pruner, study = make_fit_pruner(controls=0.0), study_with_trials()
        curve = TREES.curve(BAD)
        first = run_pruner(pruner, study, BAD, curve)
        before = pruner.forecast(3)
        assert before is not None
        assert run_pruner(pruner, study, BAD, curve, number=3) == first
        assert pruner.forecast(3) == before

    def test_an_unpromising_trial_that_continued_is_stopped_at_its_next_epoch(self) -> None:
        """A resumed session repeats the trial's epochs to the pruner and acts on the last decision only."""
        pruner, study = make_fit_pruner(controls=0.0), study_with_trials()
        reasons = run_pruner(pruner, study, BAD, constant_curve(0.05))
        assert all(reason is not None for reason in reasons[FIRST - 1 :])
        forecast = pruner.forecast(3)
        assert forecast is not None and forecast["would_stop"] == FIRST

    def test_a_new_pruner_continues_the_decisions(self) -> None:
        study = study_with_trials()
        old, new = make_fit_pruner(seed=1, controls=0.0), make_fit_pruner(seed=1, controls=0.0)
        number = add(study, BAD, state="running")
        curve = TREES.curve(BAD)
        contexts = [
            TrialContext(study=study, number=number, settings=BAD, curve=curve[:epoch]) for epoch in range(1, LENGTH)
        ]
        reasons = [old.decide(context) for context in contexts]
        assert [new.decide(context) for context in contexts[5:]] == reasons[5:]
