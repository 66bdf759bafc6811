"""Whether to transfer at all: what the fit profile and training from scratch say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from nbt.metrics import METRICS
from nbt.report.formatting import percent, score_interval, score_text
from nbt.report.study.recommendation import StudyRecommendation
from nbt.settings import TransferSettings
from nbt.tuning.baseline_recipes import is_from_scratch
from nbt.tuning.storage.records import FinalRecord, StudyRecord, TrialRecord
from nbt.tuning.target import Target

Run = TypeVar("Run", FinalRecord, TrialRecord)


def is_transfer_advised(record: StudyRecord, recommendation: StudyRecommendation | None) -> bool | None:
    """Returns whether the recommended settings use the pretrained weights; None without a recommendation or weights."""
    if recommendation is None or not _has_weights(record, recommendation):
        return None
    return not is_from_scratch(recommendation.settings)


def transfer_evidence(record: StudyRecord, recommendation: StudyRecommendation | None) -> tuple[str, ...]:
    """Returns sentences that compare training from scratch with transfer; none where it was not tried."""
    if recommendation is None or not _has_weights(record, recommendation):
        return ()
    comparison = _finals_sentence(record) or _trials_sentence(record)
    return tuple(filter(None, (_probe_sentence(record, recommendation.settings), comparison))) if comparison else ()


def _has_weights(record: StudyRecord, recommendation: StudyRecommendation) -> bool:
    config = record.config
    return config.scenario is None and config.with_backbone_of(recommendation.settings).weights != "none"


def _probe_sentence(record: StudyRecord, settings: TransferSettings) -> str:
    """Returns what the probe says of the pretrained features; "" without the profile of their backbone."""
    target = Target.of(record.dataset, record.profile, record.config.epochs)
    is_clear = target.has_clear_advantage
    if settings.backbone or is_clear is None:
        return ""
    own, random = (max(target.layer(name)) for name in ("ridge_accuracy", "ridge_accuracy_random"))
    return (
        f"A ridge probe classifies {percent(own)} of the training images of the fit profile correctly by the best of "
        f"the pretrained units, and {percent(random)} by the best of the same units with random weights: "
        f"{'a' if is_clear else 'no'} clear advantage."
    )


def _finals_sentence(record: StudyRecord) -> str:
    """Returns the best final runs with and without transfer; "" if one is missing."""
    best = _best_of_each(record.finals, lambda final: final.validation.mean)
    if best is None:
        return ""
    metric, names = METRICS[record.config.metric], []
    for final in best:
        bounds = "" if final.validation.low is None else f" (95 % interval {score_interval(final.validation, metric)})"
        names.append(f"{score_text(final.validation.mean, metric)}{bounds} by {final.name}")
    return f"In the final runs, training from scratch reaches {names[0]}, and the pretrained weights {names[1]}."


def _trials_sentence(record: StudyRecord) -> str:
    """Returns the best trials with and without transfer; "" if one is missing."""
    metric = METRICS[record.config.metric]
    found = [trial for trial in record.ranked() if not trial.diverged]
    best = _best_of_each(found, lambda trial: trial.score(metric.name) or 0.0)
    if best is None:
        return ""
    names = [f"{score_text(trial.score(metric.name), metric)} in trial {trial.number}" for trial in best]
    return f"Training from scratch reached {names[0]}, and the pretrained weights {names[1]}, in one run each."


def _best_of_each(runs: Sequence[Run], score: Callable[[Run], float]) -> tuple[Run, Run] | None:
    """Returns the best run from scratch and the best one with transfer; None if one is missing."""
    ordered = sorted(runs, key=score, reverse=True)
    scratch = next((run for run in ordered if is_from_scratch(run.settings)), None)
    transfer = next((run for run in ordered if not is_from_scratch(run.settings)), None)
    return None if scratch is None or transfer is None else (scratch, transfer)
