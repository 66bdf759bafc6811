"""FitPruner: stops a trial that is unlikely to beat the best one, and knows how often it is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbt.search.curve_forecast import Curve, CurveForecaster, Distribution, expect, probe_merit
from nbt.search.merit import accuracy_of, merit_variance
from nbt.search.pruner import TrialContext
from nbt.search.reading import read_trial
from nbt.search.records import TrialRecord
from nbt.search.target import Target
from nbt.search.task_model import TaskModel
from nbt.training.seeds import derive_seed

THRESHOLD = 0.05
CONTROLS = 0.05
_REFERENCES = 3
# Under a warm-up and a cosine the first sixth says next to nothing.
_EARLIEST = 1 / 6


@dataclass(eq=False)
class _Watch:
    """What was forecast of a trial.

    Attributes:
        rows: Epoch, mean, low, high (80 %), chance to beat the best, each time it was forecast; accuracies.
        incumbent: Accuracy to beat, at the last forecast, or when it would have been stopped.
        would_stop: Epoch at which it was found hopeless, None where it was not.
    """

    rows: list[list[float]] = field(default_factory=list)
    incumbent: float = 0.0
    would_stop: int | None = None


class FitPruner:
    """Stops a trial whose chance of beating the best finished one falls under a threshold.

    The chance is that of `CurveForecaster`, from recorded curves of other tasks, with this study's best finished trials
    as references, the settings, and the fit profile. The accuracy to beat is only known to within its validation
    standard error, which makes the chance larger the fewer the images. A random few that would be stopped run on as
    controls.

    Args:
        forecaster: Learned from recorded curves.
        models: Of the recorded tasks.
        target: What is known of the task.
        length: Epochs of a full trial.
        seed: Decides which trials are controls.
        threshold: Chance under which a trial stops.
        controls: Share of trials that are never stopped.
    """

    def __init__(
        self,
        forecaster: CurveForecaster,
        models: list[TaskModel],
        target: Target,
        *,
        length: int,
        seed: int,
        threshold: float = THRESHOLD,
        controls: float = CONTROLS,
    ) -> None:
        self._forecaster, self._expect, self._target = forecaster, expect(models), target
        self._length, self._seed, self._threshold, self._controls = length, seed, threshold, controls
        self._images, self._probe = target.validation_images, probe_merit(target)
        self._first = max(1, math.ceil(_EARLIEST * length))
        self._watched: dict[int, _Watch] = {}
        self._read: set[int] = set()
        self._references: list[Curve] = []

    def decide(self, context: TrialContext) -> str | None:
        """Returns why the trial has too small a chance, or None."""
        epoch = context.curve[-1].epoch
        references = self._best_finished(context)
        if epoch < self._first or epoch >= self._length or not references:
            return None
        curve = self._curve(context.settings, context.curve)
        distribution = self._forecaster.forecast(curve, references, self._probe)
        chance = distribution.above(references[0].final, self._error(references[0]))
        watch = self._watched.setdefault(context.number, _Watch())
        # A trial that starts over, or is resumed, repeats epochs: its forecasts are the newest attempt's.
        watch.rows = [row for row in watch.rows if row[0] < epoch]
        watch.rows.append([epoch, *self._accuracies(distribution), round(chance, 4)])
        goal = self._accuracy(references[0].final)
        if watch.would_stop is None:
            watch.incumbent = goal
        if chance >= self._threshold:
            return None
        watch.would_stop = watch.would_stop or epoch
        if self.is_control(context.number):
            return None
        _, mean, low, high, _ = watch.rows[-1]
        return (
            f"epoch {epoch}: the forecast is {100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}] and the chance of "
            f"beating {100 * goal:.1f} % is {100 * chance:.1f} %"
        )

    def is_control(self, number: int) -> bool:
        """Returns whether a trial would run on if it were found hopeless."""
        draw = np.random.default_rng(derive_seed(self._seed, "control", number)).random()
        return bool(draw < self._controls)

    def forecast(self, number: int) -> dict[str, Any] | None:
        """Returns what was forecast of a trial, in JSON types; None where nothing was.

        It has mean, low, high (80 %) and chance of the last forecast, the accuracy to beat as incumbent, all forecasts
        by epoch as rows, the epoch at which it was found hopeless as would_stop, and whether it is a control.
        """
        watch = self._watched.get(number)
        if watch is None or not watch.rows:
            return None
        epoch, mean, low, high, chance = watch.rows[-1]
        return {
            "epoch": epoch,
            "mean": mean,
            "low": low,
            "high": high,
            "chance": chance,
            "incumbent": watch.incumbent,
            "would_stop": watch.would_stop,
            "control": watch.would_stop is not None and self.is_control(number),
            "rows": watch.rows,
        }

    def _curve(self, settings: Any, epochs: Any) -> Curve:
        expected = float(self._expect([settings])[0])
        return Curve.of(settings, epochs, images=self._images, length=self._length, expected=expected)

    def _best_finished(self, context: TrialContext) -> list[Curve]:
        """Returns the curves of the best finished trials, the best first."""
        for trial in context.study.get_trials(deepcopy=False):
            if trial.number not in self._read and trial.state.is_finished():
                self._read.add(trial.number)
                record = read_trial(trial)
                curve = None if record is None else self._reference(record)
                if curve is not None:
                    self._references = sorted([*self._references, curve], key=lambda one: -one.final)[:_REFERENCES]
        return self._references

    def _reference(self, record: TrialRecord) -> Curve | None:
        if record.state != "complete" or record.diverged:
            return None
        return self._curve(record.settings, record.curve)

    def _error(self, best: Curve) -> float:
        """Returns the standard error of the merit to beat: the best of many has been lucky with its images, too."""
        return float(np.sqrt(merit_variance(accuracy_of(best.final, self._images), self._images)))

    def _accuracies(self, distribution: Distribution) -> list[float]:
        values = (distribution.mean, *self._forecaster.interval(distribution))
        return [self._accuracy(value) for value in values]

    def _accuracy(self, value: float) -> float:
        return round(float(accuracy_of(value, self._images)), 4)
