"""PriorDiagnostics: what was expected of settings before a search, and what the search's own trials made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbt.report.stored_values import list_at, mappings_at, number_at, text_at
from nbt.tuning.storage.records import StudyRecord

MIN_TRIALS = 5
"""Full-length trials below which nothing is said on whether they agree."""

CONFIRMED, CONTRADICTED, UNDECIDED = "confirmed", "contradicted", "undecided"

# How the origin of a trial begins whose settings the guide recommended before any trial.
_RECOMMENDED_PREFIX = "recommended: "


@dataclass(frozen=True, kw_only=True)
class PriorEvidence:
    """One source of the expectation beside what the trials made of it.

    Attributes:
        name: Of the heuristic, or "recorded: TASK".
        words: What it proposes.
        origin: Where that is from.
        before: Weight before any trial, in units of merit a standard deviation of what the source says.
        spread: Standard deviation of that weight.
        after: Weight given the trials.
        after_spread: Standard deviation of that weight.
        agreement: Rank correlation (-1 ... 1) of what it says with the accuracy of the full-length trials; None for
            fewer than `MIN_TRIALS` of them, or where it says the same of all.
        trials: How many full-length trials there were.
        verdict: See `verdict`.
    """

    name: str
    words: str
    origin: str
    before: float
    spread: float
    after: float
    after_spread: float
    agreement: float | None
    trials: int
    verdict: str


@dataclass(frozen=True, kw_only=True)
class PriorDiagnostics:
    """What guided a search.

    Attributes:
        sources: Heuristics that fired, then recorded tasks.
        silent: Name and reason of each heuristic that did not fire.
        tables: Names of the recorded tasks; without any, the expectation rests on rules alone.
    """

    sources: tuple[PriorEvidence, ...]
    silent: tuple[tuple[str, str], ...]
    tables: tuple[str, ...]


def prior_diagnostics(record: StudyRecord) -> PriorDiagnostics | None:
    """Returns what guided the search; None where nothing did, or nothing is stored of it yet.

    A source of which a number is missing is left out.
    """
    guide = record.prior_diagnostics
    if not any(isinstance(guide.get(key), list | tuple) for key in ("sources", "silent", "tables")):
        return None
    return PriorDiagnostics(
        sources=tuple(one for one in map(_read_evidence, mappings_at(guide, "sources")) if one is not None),
        silent=tuple((text_at(one, "name"), text_at(one, "reason")) for one in mappings_at(guide, "silent")),
        tables=tuple(str(name) for name in list_at(guide, "tables")),
    )


def diagnostics_pending(record: StudyRecord) -> bool:
    """Tells whether a search is guided though nothing is stored of it: that is done when its session ends."""
    return prior_diagnostics(record) is None and any(
        trial.origin.startswith(_RECOMMENDED_PREFIX) for trial in record.trials
    )


def verdict(before: float, spread: float, after: float, after_spread: float, trials: int) -> str:
    """Returns what the trials made of a source.

    "confirmed": the weight rose by more than its remaining spread, or the trials halved the spread and left the weight
    at least two spreads above zero. "contradicted": neither, and the weight fell by more than its remaining spread.
    "undecided": anything else, and whatever fewer than `MIN_TRIALS` full-length trials say.
    """
    if trials < MIN_TRIALS:
        return UNDECIDED
    held = 2 * after_spread <= spread and after >= 2 * after_spread > 0
    if after - before > after_spread or held:
        return CONFIRMED
    return CONTRADICTED if before - after > after_spread else UNDECIDED


def _read_evidence(stored: Mapping[str, Any]) -> PriorEvidence | None:
    name = text_at(stored, "name")
    weights = [number_at(stored, key) for key in ("mean", "spread", "after", "after_spread")]
    known = [weight for weight in weights if weight is not None]
    if not name or len(known) < len(weights):
        return None
    before, spread, after, after_spread = known
    trials = int(number_at(stored, "trials") or 0)
    return PriorEvidence(
        name=name,
        words=text_at(stored, "words"),
        origin=text_at(stored, "origin"),
        before=before,
        spread=spread,
        after=after,
        after_spread=after_spread,
        agreement=number_at(stored, "agreement"),
        trials=trials,
        verdict=verdict(before, spread, after, after_spread, trials),
    )
