"""NBT208: trials were stopped that would have been among the best."""

from __future__ import annotations

from collections.abc import Iterator

from nbt.checks import Check, CheckResult
from nbt.report.formatting import format_interval, join_words, percent, pluralise
from nbt.report.priors.pruning import STOPPED, PruningResults, forecast_of, pruning_results
from nbt.training.results import last_score
from nbt.tuning.intervals import wilson_interval
from nbt.tuning.storage.records import StudyRecord, TrialRecord

_TOLERATED_RATE = 0.05
"""Probability of beating the best trial below which the fit pruner stops a trial."""
_EXPECTED_ABOVE = 0.1
"""Share of trials that end above an 80 % interval if the forecasts are calibrated."""
_ERROR = 0.05

_ADVICE = "Search with --pruner none, or with a larger --budget, in another --study, and compare the best trials."


class FalseStops(Check[StudyRecord]):
    """Estimates how often the pruner was wrong.

    With forecasts: by the controls, which were to be stopped but continued, and by the trials that ended above the
    interval that was forecast at half of their epochs. Without forecasts: by stopped trials that were ahead of the best
    trial at that epoch.
    """

    code = "NBT208"
    title = "false stops"
    severity = "warning"

    def run(self, subject: StudyRecord) -> CheckResult:
        """Looks for a rate of false stops, or of outcomes above the forecast, that is higher than tolerated."""
        results = pruning_results(subject)
        stopped = len(results.with_decision(STOPPED))
        if not stopped:
            return self.not_applicable("No trial was stopped by a pruner.")
        if not results.forecasts:
            return self._without_forecasts(subject, stopped)
        evidence = list(_evidence(subject, results))
        were_stopped = f"{pluralise(stopped, 'trial was', 'trials were')} stopped"
        if not evidence:
            return self.not_applicable(f"{were_stopped}; no full-length trial has a forecast, and none is a control.")
        found = f"{were_stopped}; {join_words([text for _, text in evidence])}."
        return self.failed(found, _ADVICE) if any(bad for bad, _ in evidence) else self.passed(found)

    def _without_forecasts(self, record: StudyRecord, stopped: int) -> CheckResult:
        best = next((trial for trial in record.ranked() if not trial.diverged), None)
        if best is None:
            return self.not_applicable("No full-length trial can be compared with the stopped ones.")
        noise = record.noise or 0.0
        ahead = [
            trial
            for trial in record.trials
            if trial.state == "pruned" and _is_ahead(trial, best, noise, record.config.metric)
        ]
        verb = "was" if len(ahead) == 1 else "were"
        found = (
            f"{len(ahead)} of {pluralise(stopped, 'stopped trial')} {verb} ahead of trial {best.number}, the best one, "
            "at the same epoch by more than a standard error"
        )
        if not ahead:
            return self.passed(f"{found}.")
        return self.failed(
            f"{found}.", _ADVICE, count=len(ahead), examples=(f"trial {trial.number}" for trial in ahead)
        )


def _evidence(record: StudyRecord, results: PruningResults) -> Iterator[tuple[bool, str]]:
    """Yields whether an estimate is higher than tolerated, and a clause on it."""
    rate = results.false_stop_rate
    if rate is not None:
        hits = round(rate.mean * rate.n)
        yield (
            _is_above(hits, rate.n, _TOLERATED_RATE),
            f"{hits} of {pluralise(rate.n, 'control')} beat the best trial ({format_interval(rate)}; "
            f"{percent(_TOLERATED_RATE, 0)} tolerated)",
        )
    above = [value for trial in record.trials if (value := _ended_above(trial, record.config.metric)) is not None]
    if above:
        share = wilson_interval(sum(above) / len(above), len(above))
        yield (
            _is_above(sum(above), len(above), _EXPECTED_ABOVE),
            f"{sum(above)} of {pluralise(len(above), 'trial')} that reached half of their epochs ended above the 80 % "
            f"interval of the forecast ({format_interval(share)}; at most {percent(_EXPECTED_ABOVE, 0)} expected)",
        )


def _is_above(hits: int, n: int, rate: float) -> bool:
    """Returns whether `n` independent cases with this rate have as many hits with a probability below 5 %."""
    from scipy.stats import binom

    return bool(binom.sf(hits - 1, n, rate) < _ERROR)


def _ended_above(trial: TrialRecord, metric: str) -> bool | None:
    """Returns whether a trial ended above its forecast's interval at half its epochs; None if it did not reach them.

    A trial that was stopped later counts as one that did not: without them the others, which went on because they were
    better than their forecasts, would be a biased sample.
    """
    forecast, half = forecast_of(trial), trial.settings.epochs / 2
    row = None if forecast is None else forecast.latest_at(half)
    if row is None or len(trial.curve) < half or trial.state not in ("complete", "pruned"):
        return None
    score = trial.score(metric)
    return score is not None and score > row.high


def _is_ahead(trial: TrialRecord, best: TrialRecord, margin: float, metric: str) -> bool:
    """Returns whether a stopped trial was ahead of the best one after the epoch at which it was stopped."""
    reached, epochs = trial.last_score(metric), len(trial.curve)
    if reached is None or epochs > len(best.curve):
        return False
    return reached > (last_score(best.curve[:epochs], metric) or 0.0) + margin
