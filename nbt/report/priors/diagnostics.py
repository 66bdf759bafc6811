"""Prior diagnostics of a study: prior expectations and how far the trials of the search agree with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbt.report.stored_values import list_at, mappings_at, number_at, text_at
from nbt.tuning.storage.records import PRIOR_ORIGIN_PREFIX, StudyRecord

MIN_TRIALS = 5
"""Minimum number of full-length trials for an agreement and a verdict."""

CONFIRMED, CONTRADICTED, UNDECIDED = "confirmed", "contradicted", "undecided"

# Prefix of the origin of trials whose settings the prior surrogate recommended.


@dataclass(frozen=True, kw_only=True)
class PriorEvidence:
    """One source of prior knowledge and the evidence of the trials for or against it.

    Attributes:
        name: Name of the prior, or "recorded tasks".
        description: What the source proposes.
        origin: Reference or dataset behind the source.
        weight_before: Weight before any trial, in logit score per standard deviation of the source's predictions.
        spread_before: Standard deviation of that weight.
        weight_after: Weight given the trials.
        spread_after: Standard deviation of that weight.
        agreement: Rank correlation (-1 ... 1) of the predictions with the accuracy of the full-length trials; None for
            fewer than `MIN_TRIALS` trials or constant predictions.
        trials: Number of full-length trials.
        verdict: See `evidence_verdict`.
    """

    name: str
    description: str
    origin: str
    weight_before: float
    spread_before: float
    weight_after: float
    spread_after: float
    agreement: float | None
    trials: int
    verdict: str


@dataclass(frozen=True, kw_only=True)
class PriorDiagnostics:
    """Sources of prior knowledge of a search.

    Attributes:
        sources: Active priors, then recorded tasks.
        inactive: Name and reason of each inactive prior.
        recorded_tasks: Names of the recorded tasks; may be empty.
    """

    sources: tuple[PriorEvidence, ...]
    inactive: tuple[tuple[str, str], ...]
    recorded_tasks: tuple[str, ...]


def prior_diagnostics(record: StudyRecord) -> PriorDiagnostics | None:
    """Returns the stored diagnostics; None for a search without priors or before they are stored.

    Sources with a missing number are left out.
    """
    stored = record.prior_diagnostics
    if not any(isinstance(stored.get(key), list | tuple) for key in ("sources", "silent", "tables")):
        return None
    sources = map(_read_evidence, mappings_at(stored, "sources"))
    return PriorDiagnostics(
        sources=tuple(source for source in sources if source is not None),
        inactive=tuple((text_at(item, "name"), text_at(item, "reason")) for item in mappings_at(stored, "silent")),
        recorded_tasks=tuple(str(name) for name in list_at(stored, "tables")),
    )


def diagnostics_pending(record: StudyRecord) -> bool:
    """Returns whether a search uses priors but has no diagnostics yet: they are stored when its session ends."""
    if prior_diagnostics(record) is not None:
        return False
    if record.search is not None and record.config.scenario is None:
        return record.search.heuristics
    return any(trial.origin.startswith(PRIOR_ORIGIN_PREFIX) for trial in record.trials)


def evidence_verdict(
    weight_before: float, spread_before: float, weight_after: float, spread_after: float, trials: int
) -> str:
    """Returns the verdict of the trials on a source.

    "confirmed": the weight rose by more than its remaining spread, or the trials halved the spread and left the weight
    at least two spreads above zero. "contradicted": otherwise, if the weight fell by more than its remaining spread.
    "undecided": otherwise, and always for fewer than `MIN_TRIALS` full-length trials.
    """
    if trials < MIN_TRIALS:
        return UNDECIDED
    upheld = 2 * spread_after <= spread_before and weight_after >= 2 * spread_after > 0
    if weight_after - weight_before > spread_after or upheld:
        return CONFIRMED
    return CONTRADICTED if weight_before - weight_after > spread_after else UNDECIDED


def _read_evidence(stored: Mapping[str, Any]) -> PriorEvidence | None:
    name = text_at(stored, "name")
    values = [number_at(stored, key) for key in ("mean", "spread", "after", "after_spread")]
    weights = [value for value in values if value is not None]
    if not name or len(weights) < len(values):
        return None
    weight_before, spread_before, weight_after, spread_after = weights
    trials = int(number_at(stored, "trials") or 0)
    return PriorEvidence(
        name=name,
        description=text_at(stored, "words"),
        origin=text_at(stored, "origin"),
        weight_before=weight_before,
        spread_before=spread_before,
        weight_after=weight_after,
        spread_after=spread_after,
        agreement=number_at(stored, "agreement"),
        trials=trials,
        verdict=evidence_verdict(weight_before, spread_before, weight_after, spread_after, trials),
    )
