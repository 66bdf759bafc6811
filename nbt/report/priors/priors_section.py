"""Section of a report on the priors: sentences and table rows."""

from __future__ import annotations

from collections.abc import Sequence

from nbt.report.formatting import DASH, TemplateData, join_words, one_line, pluralise, signed_number
from nbt.report.priors.diagnostics import (
    CONFIRMED,
    CONTRADICTED,
    MIN_TRIALS,
    PriorDiagnostics,
    PriorEvidence,
    diagnostics_pending,
    prior_diagnostics,
)
from nbt.tuning.storage.records import StudyRecord


def priors_section(record: StudyRecord) -> TemplateData:
    """Returns the section on the priors of a search.

    Its `sources` are the rows of the active priors, then of the recorded tasks; `inactive` has one line per inactive
    prior, with the reason.
    """
    diagnostics = prior_diagnostics(record)
    if diagnostics is None:
        return TemplateData(sentences=(_no_priors_sentence(record),), sources=(), legend="", inactive=())
    return TemplateData(
        sentences=_prior_sentences(diagnostics),
        sources=tuple(map(_prior_row, diagnostics.sources)),
        legend=_LEGEND if diagnostics.sources else "",
        inactive=tuple(one_line(f"{name or DASH}: {reason or DASH}") for name, reason in diagnostics.inactive),
    )


def _no_priors_sentence(record: StudyRecord) -> str:
    if diagnostics_pending(record):
        return "The search uses priors; this section compares them with the trials when the session has ended."
    return (
        "The search used no priors: after the baseline recipes, the sampler proposed settings from this study's own "
        "trials alone."
    )


def _prior_sentences(diagnostics: PriorDiagnostics) -> tuple[str, ...]:
    # The source of recorded tasks is "recorded tasks"; earlier versions had one per task, "recorded: TASK".
    active = sum(not source.name.startswith("recorded") for source in diagnostics.sources)
    inactive = len(diagnostics.inactive)
    counts = f"{pluralise(active, 'prior')} {_was_or_were(active)} active"
    counts += f", {inactive} {_was_or_were(inactive)} inactive." if inactive else "."
    if diagnostics.recorded_tasks:
        names = join_words([one_line(name) for name in diagnostics.recorded_tasks])
        count = pluralise(len(diagnostics.recorded_tasks), "recorded table")
        experience = f"The experience consisted of {count}: {names}."
    else:
        experience = "No recorded tables were used: prior expectations rest on the priors alone."
    return (counts, experience, _verdict_sentence(diagnostics.sources))


def _was_or_were(count: int) -> str:
    return "was" if count == 1 else "were"


def _verdict_sentence(sources: Sequence[PriorEvidence]) -> str:
    if not sources:
        return "There were no prior expectations: the search used the study's own trials alone."
    names = {verdict: [source.name for source in sources if source.verdict == verdict] for verdict in _VERDICT_VERBS}
    clauses = [f"{verb} {join_words(names[verdict])}" for verdict, verb in _VERDICT_VERBS.items() if names[verdict]]
    if not clauses:
        return "The study's own trials neither confirm nor contradict any of these sources."
    return one_line(f"The study's own trials {', and '.join(clauses)}.")


_VERDICT_VERBS = {CONFIRMED: "confirm", CONTRADICTED: "contradict"}

_LEGEND = (
    "Weights are logit scores (log odds of accuracy, scaled) per standard deviation of a prior's predictions, and per "
    "predicted logit score of recorded tasks; ± is one standard deviation of the weight. Agreement is the rank "
    "correlation of the source's predictions with the accuracy of the full-length trials, which the search chose and "
    "which are not a random sample of settings. Confirmed: the weight rose by more than its remaining standard "
    "deviation, or the trials halved its standard deviation and left the weight at least two of them above zero. "
    "Contradicted: the weight fell by more than its remaining standard deviation. Undecided: neither, or fewer than "
    f"{MIN_TRIALS} full-length trials."
)


def _prior_row(source: PriorEvidence) -> TemplateData:
    return TemplateData(
        name=one_line(source.name),
        description=one_line(source.description),
        origin=one_line(source.origin),
        weight_before=_weight_text(source.weight_before, source.spread_before),
        weight_after=_weight_text(source.weight_after, source.spread_after),
        agreement=_agreement_text(source),
        verdict=source.verdict,
    )


def _weight_text(mean: float, spread: float) -> str:
    return f"{signed_number(mean)} ± {spread:.2f}"


def _agreement_text(source: PriorEvidence) -> str:
    if source.trials < MIN_TRIALS:
        return f"too few trials ({source.trials})"
    return DASH if source.agreement is None else f"{signed_number(source.agreement)} (n = {source.trials})"
