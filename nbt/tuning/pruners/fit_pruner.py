"""Pruner that stops unpromising trials by a forecast of their learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from nbt.metrics import METRICS
from nbt.seeds import derive_seed
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.pruners.base import TrialContext
from nbt.tuning.pruners.curve_forecast import (
    CurveForecaster,
    ForecastDistribution,
    LearningCurve,
    expected_scores,
    probe_logit_score,
)
from nbt.tuning.storage.finished_trials import FinishedTrials
from nbt.tuning.storage.reader import read_trial
from nbt.tuning.surrogate.experience_model import ExperienceModel
from nbt.tuning.surrogate.logit_score import accuracy_from_logit_score, logit_score_variance
from nbt.tuning.target import Target

DEFAULT_THRESHOLD = 0.05
DEFAULT_CONTROL_FRACTION = 0.05
_NUM_REFERENCE_CURVES = 3
# Under a warm-up and cosine schedule, the first sixth of a curve carries almost no information.
_MIN_TRAINED_FRACTION = 1 / 6
# More than the trials that can run at a time, each of which needs its expected score after every epoch.
_MAX_EXPECTED_SCORES = 4096


@dataclass(eq=False)
class _ForecastHistory:
    """The forecasts of one trial.

    Attributes:
        rows: One row per forecast: epoch, mean, low and high score (80 % interval), probability of beating the best
            trial.
        incumbent: Score to beat at the last forecast, or at the one after which the trial should have stopped.
        would_stop: Epoch after which the trial should have stopped, or None.
        control: Whether the trial is a control.
    """

    rows: list[list[float]] = field(default_factory=list)
    incumbent: float = 0.0
    would_stop: int | None = None
    control: bool = False


class FitPruner:
    """Stops a trial when its probability of beating the best finished trial falls below a threshold.

    The probability comes from a `CurveForecaster` that is trained on recorded curves of other tasks. It uses the best
    finished trials of the study as references, the settings, and the fit profile. The accuracy to beat has a validation
    standard error, which raises the probability when there are few validation images. A random share of the trials is
    never stopped: these controls show how often the pruner is wrong.

    Args:
        forecaster: Forecaster trained on recorded curves.
        experience: Model of the recorded tasks; None without any.
        target: Target with the facts and the profile of the task.
        seed: Seed that selects the control trials.
        threshold: Probability below which a trial stops, 0 ... 1.
        controls: Share of trials that are never stopped, 0 ... 1.
        others: Targets of other backbones by the setting `backbone`; their fit profiles differ.
    """

    def __init__(
        self,
        forecaster: CurveForecaster,
        experience: ExperienceModel | None,
        target: Target,
        *,
        seed: int,
        threshold: float = DEFAULT_THRESHOLD,
        controls: float = DEFAULT_CONTROL_FRACTION,
        others: Mapping[str, Target] | None = None,
    ) -> None:
        self._forecaster = forecaster
        targets = {"": target, **(others or {})}
        predictions = {name: expected_scores(experience, found) for name, found in targets.items()}
        self._expected_score = lru_cache(_MAX_EXPECTED_SCORES)(
            lambda settings: float(predictions[settings.backbone]([settings])[0])
        )
        self._seed, self._threshold, self._control_fraction = seed, threshold, controls
        self._images = target.validation_images
        self._probes = {name: probe_logit_score(found) for name, found in targets.items()}
        self._metric = METRICS[target.metric]
        self._histories: dict[int, _ForecastHistory] = {}
        self._finished_trials = FinishedTrials()
        self._reference_curves: list[LearningCurve] = []

    def decide(self, context: TrialContext) -> str | None:
        """Returns the reason for which the trial is unpromising, or None to continue."""
        epoch = context.curve[-1].epoch
        references = self._best_finished_curves(context)
        length = context.settings.epochs
        if epoch < max(1, math.ceil(_MIN_TRAINED_FRACTION * length)) or epoch >= length or not references:
            return None
        curve = self._with_expected_score(self._curve(context.settings, context.curve))
        probe = self._probes[context.settings.backbone]
        distribution = self._forecaster.forecast(curve, references, probe)
        chance = distribution.probability_above(references[0].end_score, self._incumbent_std(references[0]))
        history = self._histories.setdefault(context.number, _ForecastHistory())
        # A restarted or resumed trial repeats epochs; only the forecasts of the newest attempt are kept.
        history.rows = [row for row in history.rows if row[0] < epoch]
        history.rows.append([epoch, *self._forecast_scores(distribution), round(chance, 4)])
        score_to_beat = self._to_score(references[0].end_score)
        if history.would_stop is None:
            history.incumbent = score_to_beat
        if chance >= self._threshold:
            return None
        history.would_stop = history.would_stop or epoch
        history.control = self.is_control(context.number if context.index is None else context.index)
        if history.control:
            return None
        _, mean, low, high, _ = history.rows[-1]
        text, bounds = self._metric.format_score, [self._metric.format_score(score).split()[0] for score in (low, high)]
        return (
            f"epoch {epoch}: the forecast is {text(mean)} [{', '.join(bounds)}] and the chance of "
            f"beating {text(score_to_beat)} is {100 * chance:.1f} %"
        )

    def is_control(self, index: int) -> bool:
        """Returns whether the trial with an index (see `TrialContext`) is a control, which is never stopped."""
        draw = np.random.default_rng(derive_seed(self._seed, "control", index)).random()
        return bool(draw < self._control_fraction)

    def forecast(self, number: int) -> dict[str, Any] | None:
        """Returns the forecasts of a trial in JSON types, or None if there are none.

        The keys are `epoch`, `mean`, `low`, `high` (80 % interval) and `chance` of the last forecast; `incumbent`, the
        score to beat; `would_stop`, the epoch after which the trial should have stopped; `control`, whether it was
        due to stop but is a control; and `rows`, all forecasts by epoch.
        """
        history = self._histories.get(number)
        if history is None or not history.rows:
            return None
        epoch, mean, low, high, chance = history.rows[-1]
        return {
            "epoch": epoch,
            "mean": mean,
            "low": low,
            "high": high,
            "chance": chance,
            "incumbent": history.incumbent,
            "would_stop": history.would_stop,
            "control": history.control,
            "rows": history.rows,
        }

    def _curve(self, settings: TransferSettings, epochs: Sequence[EpochResult]) -> LearningCurve:
        return LearningCurve.from_epochs(
            settings,
            epochs,
            images=self._images,
            total_epochs=settings.epochs,
            metric=self._metric.name,
        )

    def _with_expected_score(self, curve: LearningCurve) -> LearningCurve:
        return replace(curve, expected_score=self._expected_score(curve.settings))

    def _best_finished_curves(self, context: TrialContext) -> list[LearningCurve]:
        """Returns the curves of the best full-length trials that did not diverge, best first."""
        records = map(read_trial, self._finished_trials.update(context.study.get_trials(deepcopy=False)))
        finished = [record for record in records if record is not None and record.state == "complete"]
        curves = [self._curve(record.settings, record.curve) for record in finished if not record.diverged]
        ranked = sorted([*self._reference_curves, *curves], key=lambda reference: -reference.end_score)
        # The model of the recorded tasks is evaluated for an expected score, which only these curves need.
        self._reference_curves = list(map(self._with_expected_score, ranked[:_NUM_REFERENCE_CURVES]))
        return self._reference_curves

    def _incumbent_std(self, best: LearningCurve) -> float:
        """Returns the standard error of the score to beat, which may be high by chance as the best of many."""
        score = accuracy_from_logit_score(best.end_score, self._images)
        return float(np.sqrt(logit_score_variance(score, self._images)))

    def _forecast_scores(self, distribution: ForecastDistribution) -> list[float]:
        """Returns the mean and the lower and upper end of the 80 % interval of a forecast, 0 ... 1."""
        scores = (distribution.mean, *self._forecaster.interval(distribution))
        return [self._to_score(score) for score in scores]

    def _to_score(self, score: float) -> float:
        """Returns the score, 0 ... 1, of a logit score."""
        return round(float(accuracy_from_logit_score(score, self._images)), 4)
