"""Words on guidance, pruning and the skill of measures: the sections of a report, as sentences and rows of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nbt.report.fit import correlation as correlation
from nbt.report.formatting import DASH, MINUS, format_interval, join_words, one_line, percent, pluralise
from nbt.report.priors import diagnostics as diagnostics
from nbt.report.priors import pruning
from nbt.report.priors.pruning import CONTROL, EXEMPT, STOPPED, Forecast, PruningDecision, PruningResults
from nbt.tuning.storage.records import StudyRecord


@dataclass(frozen=True, kw_only=True)
class PriorRow:
    """One source of the expectation."""

    name: str
    words: str
    origin: str
    before: str
    after: str
    agreement: str
    verdict: str


@dataclass(frozen=True, kw_only=True)
class PriorsSection:
    """What guided the search.

    Attributes:
        sentences: What it was, and what it rests on.
        sources: Heuristics that fired, then recorded tasks.
        legend: How to read the columns; "" without sources.
        silent: A line for each heuristic that did not fire.
    """

    sentences: tuple[str, ...]
    sources: tuple[PriorRow, ...]
    legend: str
    silent: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PrunedTrialRow:
    """One trial that was stopped, or would have been."""

    number: int
    decision: str
    epochs: int
    mean: str
    interval: str
    to_beat: str
    chance: str
    outcome: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class PruningSection:
    """What pruning did.

    Attributes:
        sentences: How many were stopped, what that saved, how often it was wrong.
        rows: The trials, by number; empty where nothing was forecast.
        forecasts: Whether any trial has a forecast.
    """

    sentences: tuple[str, ...]
    rows: tuple[PrunedTrialRow, ...]
    forecasts: bool


@dataclass(frozen=True, kw_only=True)
class CorrelationRow:
    """One measure beside the trivial baseline, at both depths; `trials` as "12", or "12 and 9" where they differ."""

    label: str
    transfer: str
    transfer_baseline: str
    frozen: str
    frozen_baseline: str
    trials: str


@dataclass(frozen=True, kw_only=True)
class CorrelationSection:
    """How well the measures told this study's trials apart.

    Attributes:
        sentence: How to read the rows, or why there are none.
        rows: One a measure.
    """

    sentence: str
    rows: tuple[CorrelationRow, ...]


def priors_section(record: StudyRecord) -> PriorsSection:
    """Returns what guided the search, in words."""
    found = diagnostics.prior_diagnostics(record)
    if found is None:
        return PriorsSection(sentences=(_no_priors_sentence(record),), sources=(), legend="", silent=())
    return PriorsSection(
        sentences=_prior_sentences(found),
        sources=tuple(map(_prior_row, found.sources)),
        legend=_LEGEND if found.sources else "",
        silent=tuple(one_line(f"{name or DASH}: {reason or DASH}") for name, reason in found.silent),
    )


def _no_priors_sentence(record: StudyRecord) -> str:
    if diagnostics.diagnostics_pending(record):
        return "The search is guided; what guides it, and whether its trials agree, is told when the session ends."
    return (
        "Nothing guided the search: after the first recipes a plain sampler proposed the settings, from this study's "
        "own trials alone."
    )


def _prior_sentences(found: diagnostics.PriorDiagnostics) -> tuple[str, ...]:
    rules = len(found.sources) - sum(one.name.startswith("recorded: ") for one in found.sources)
    fired = f"{pluralise(rules, 'heuristic')} fired" + (f", {len(found.silent)} did not." if found.silent else ".")
    if found.tables:
        names = join_words([one_line(name) for name in found.tables])
        experience = f"Experience was {pluralise(len(found.tables), 'recorded task')}: {names}."
    else:
        experience = "There were no recorded tasks: what was expected beforehand rests on rules alone."
    return (fired, experience, _verdict_sentence(found.sources))


def _verdict_sentence(sources: Sequence[diagnostics.PriorEvidence]) -> str:
    if not sources:
        return "Nothing was expected beforehand, so the study's own trials alone steered the search."
    counts = {word: [one.name for one in sources if one.verdict == word] for word in _VERDICTS}
    told = [f"{words} {join_words(names)}" for word, words in _VERDICTS.items() if (names := counts[word])]
    if not told:
        return "The study's own trials do not settle whether any of it holds here."
    return one_line(f"The study's own trials {', and '.join(told)}.")


_VERDICTS = {diagnostics.CONFIRMED: "confirm", diagnostics.CONTRADICTED: "contradict"}

_LEGEND = (
    "Weights are in units of merit, a multiple of the log odds of accuracy, for one standard deviation of what the "
    "source says; ± is a standard deviation of the weight. Agreement is the rank correlation of what the source says "
    "with the accuracy of the full-length trials; these were chosen by the search and are no random sample of "
    "settings. Confirmed: the weight rose by more than its remaining spread, or the trials halved the spread and left "
    "it two spreads above zero; contradicted: it fell by more than its remaining spread; undecided: neither, or fewer "
    f"than {diagnostics.MIN_TRIALS} full-length trials."
)


def _prior_row(one: diagnostics.PriorEvidence) -> PriorRow:
    return PriorRow(
        name=one_line(one.name),
        words=one_line(one.words),
        origin=one_line(one.origin),
        before=_weight(one.before, one.spread),
        after=_weight(one.after, one.after_spread),
        agreement=_agreement(one),
        verdict=one.verdict,
    )


def _weight(mean: float, spread: float) -> str:
    return f"{_signed(mean)} ± {spread:.2f}"


def _agreement(one: diagnostics.PriorEvidence) -> str:
    if one.trials < diagnostics.MIN_TRIALS:
        return f"too few trials ({one.trials})"
    return DASH if one.agreement is None else f"{_signed(one.agreement)} (n = {one.trials})"


def _signed(value: float) -> str:
    rounded = round(value, 2)
    return f"{MINUS if rounded < 0 else '+'}{abs(rounded):.2f}"


def pruning_section(record: StudyRecord) -> PruningSection:
    """Returns what pruning did, in words."""
    found = pruning.pruning(record)
    sentences = [_stopped_sentence(record, found)]
    if found.forecasts:
        sentences += [_control_sentence(found), _exempt_sentence(found), _coverage_sentence(found)]
    elif found.of(STOPPED):
        sentences.append("This pruner lets no stopped trial run on, so how often it was wrong cannot be told.")
    return PruningSection(
        sentences=tuple(sentence for sentence in sentences if sentence),
        rows=tuple(map(_pruned_trial_row, found.decisions)) if found.forecasts else (),
        forecasts=found.forecasts,
    )


def _stopped_sentence(record: StudyRecord, found: PruningResults) -> str:
    stopped = len(found.of(STOPPED))
    name = one_line(record.pruner) or DASH
    budget = (
        f" The end of the budget stopped {pluralise(found.stopped_by_budget, 'trial')}."
        if found.stopped_by_budget
        else ""
    )
    if not stopped:
        return f"No trial was stopped early (pruner {name}).{budget}"
    were = "was" if stopped == 1 else "were"
    saved = f"which saved {pluralise(found.saved, 'epoch')} of full trials"
    return f"{pluralise(stopped, 'trial')} {were} stopped early (pruner {name}), {saved}.{budget}"


def _control_sentence(found: PruningResults) -> str:
    controls = found.of(CONTROL)
    waiting = [one for one in controls if one.beat is None]
    unknown = f" Of {pluralise(len(waiting), 'more control')} the outcome is not known." if waiting else ""
    if found.false_stop_rate is None:
        return (
            "A random few of the trials that are found hopeless run on as controls; none has done so to its end here, "
            f"so this study cannot tell how often stopping was wrong.{unknown}"
        )
    beat = sum(one.beat is True for one in controls)
    ran = pluralise(found.false_stop_rate.n, "trial")
    return (
        f"Of {ran} found hopeless that ran on as random controls, {beat or 'none'} beat the accuracy to beat: a "
        f"false-stop rate of {percent(found.false_stop_rate.mean)} (95 % Wilson interval {format_interval(found.false_stop_rate)})."
        f"{unknown}"
    )


def _exempt_sentence(found: PruningResults) -> str:
    spared = [one for one in found.of(EXEMPT) if one.beat is not None]
    if not spared:
        return ""
    beat = sum(one.beat is True for one in spared)
    return (
        f"Of the first recipes, which are never stopped, {len(spared)} would have been; {beat or 'none'} of them beat "
        "the accuracy to beat (no random sample, so not part of the rate)."
    )


def _coverage_sentence(found: PruningResults) -> str:
    if found.coverage is None:
        return "No full-length trial has a forecast from its first half to compare with."
    inside = round(found.coverage.mean * found.coverage.n)
    return (
        f"{inside} of {pluralise(found.coverage.n, 'full-length trial')} ({percent(found.coverage.mean, 0)}, 95 % Wilson "
        f"interval {format_interval(found.coverage)}) ended inside the 80 % interval of the last forecast from their first half; "
        "stopped trials have no outcome, so these are the ones that ran on."
    )


def _pruned_trial_row(one: PruningDecision) -> PrunedTrialRow:
    forecast = one.forecast
    row = None if forecast is None else forecast.deciding
    return PrunedTrialRow(
        number=one.number,
        decision=_DECISION_LABELS[one.decision],
        epochs=one.epochs,
        mean=DASH if row is None else percent(row.mean),
        interval=DASH if row is None else percent_range(row.low, row.high),
        to_beat=percent(None if forecast is None else forecast.incumbent),
        chance=DASH if row is None else percent(row.chance),
        outcome=_outcome_text(one),
        reason=one_line(one.reason),
    )


_DECISION_LABELS = {STOPPED: "stopped", CONTROL: "control, ran on", EXEMPT: "first recipe, never stopped"}


def _outcome_text(one: PruningDecision) -> str:
    if one.outcome is None:
        return "not known"
    return percent(one.outcome) + ("" if one.beat is None else ", beat it" if one.beat else ", did not beat it")


def percent_range(low: float, high: float) -> str:
    """Returns the bounds of a forecast's interval in percent, e.g. "58.0-63.1 %"."""
    return f"{100 * low:.1f}{DASH}{100 * high:.1f} %"


def last_forecast_range(forecast: Forecast | None) -> str:
    """Returns the 80 % interval of the last forecast of a trial, "" where there was none."""
    return "" if forecast is None else percent_range(forecast.last.low, forecast.last.high)


_LABELS = {
    "ridge_accuracy": "ridge probe",
    "gain": "gain over random",
    "logme": "LogME",
    "h_score": "H-score",
    "mean_shift": "shift of the means",
    "variance_shift": "shift of the variances",
    "dead_channels": "dead channels",
    "cka_next": "CKA with the next unit",
}


def correlation_section(record: StudyRecord) -> CorrelationSection | None:
    """Returns how well the measures told the study's trials apart; None without a profile of units."""
    found = correlation.measure_correlations(record)
    if not found:
        return None
    full = len(correlation.comparable_trials(record))
    if full < correlation.MIN_TRIALS:
        few = f"{pluralise(full, 'full-length trial')} that did not diverge"
        return CorrelationSection(
            sentence=f"Whether the measures of single units told the trials apart cannot be said from {few}: that "
            f"takes {correlation.MIN_TRIALS}.",
            rows=(),
        )
    pairs = zip(found[::2], found[1::2], strict=True)
    return CorrelationSection(
        sentence=(
            "Rank correlation (Kendall's tau-b) of a measure with the validation accuracy of the full-length trials "
            "that did not diverge: its value at the last unit that a trial transfers, or freezes, beside the trivial "
            f"baseline, the number of those units. Of {full} unrelated trials chance alone gives up to ± "
            f"{correlation.chance_level(full):.2f} in 95 % of cases. The search chose these trials, so they are no random "
            "sample of settings."
        ),
        rows=tuple(_correlation_row(transfer, frozen) for transfer, frozen in pairs),
    )


def _correlation_row(
    transfer: correlation.MeasureCorrelation, frozen: correlation.MeasureCorrelation
) -> CorrelationRow:
    same = transfer.trials == frozen.trials
    return CorrelationRow(
        label=_LABELS[transfer.measure],
        transfer=_tau(transfer.tau),
        transfer_baseline=_tau(transfer.baseline),
        frozen=_tau(frozen.tau),
        frozen_baseline=_tau(frozen.baseline),
        trials=str(transfer.trials) if same else f"{transfer.trials} and {frozen.trials}",
    )


def _tau(value: float | None) -> str:
    return DASH if value is None else _signed(value)
