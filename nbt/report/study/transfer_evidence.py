"""Whether to transfer at all: what the fit profile and training from scratch say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from nbt.metrics import METRICS
from nbt.report.formatting import join_words, one_line, percent, score_interval, score_text
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
    if not comparison:
        return ()
    backbone = recommendation.settings.backbone
    return tuple(filter(None, (_probe_sentence(record, backbone), _others_sentence(record, backbone), comparison)))


def _has_weights(record: StudyRecord, recommendation: StudyRecommendation) -> bool:
    return record.config.scenario is None and _is_pretrained(record, recommendation.settings)


def _is_pretrained(record: StudyRecord, settings: TransferSettings) -> bool:
    return record.config.with_backbone_of(settings).weights != "none"


def _target(record: StudyRecord, backbone: str) -> Target:
    """Returns the target with a backbone, by the setting `backbone`."""
    return Target.of(record.dataset, record.profile_of(backbone), record.config.epochs)


def _probe_sentence(record: StudyRecord, backbone: str) -> str:
    """Returns what the probe says of the pretrained features; "" without the profile of their backbone."""
    target = _target(record, backbone)
    is_clear = target.has_clear_advantage
    if is_clear is None:
        return ""
    units = "pretrained units" + (f" of {_backbone_name(record, backbone)}" if record.config.candidates else "")
    own, random = (max(target.layer(name)) for name in ("ridge_accuracy", "ridge_accuracy_random"))
    return (
        f"A ridge probe classifies {percent(own)} of the training images of the fit profile correctly by the best of "
        f"the {units}, and {percent(random)} by the best of the same units with random weights: "
        f"{'a' if is_clear else 'no'} clear advantage."
    )


def _others_sentence(record: StudyRecord, backbone: str) -> str:
    """Returns which of the other backbones have a clear advantage; "" without the profile of any."""
    names = ("", *(candidate.name for candidate in record.config.candidates[1:]))
    advantages = {name: _target(record, name).has_clear_advantage for name in names if name != backbone}
    texts = []
    for is_clear, words in ((True, "a clear advantage"), (False, "no clear advantage")):
        found = [_backbone_name(record, name) for name, value in advantages.items() if value is is_clear]
        if found:
            texts.append(f"the weights of {join_words(found)} have {words}")
    return f"By the ridge probe, {', and '.join(texts)}." if texts else ""


def _backbone_name(record: StudyRecord, backbone: str) -> str:
    return one_line(backbone or record.config.candidates[0].name)


def _with_backbone(record: StudyRecord, settings: TransferSettings) -> str:
    """Returns " with" and the backbone of settings; "" for a study of one backbone."""
    return f" with {_backbone_name(record, settings.backbone)}" if record.config.candidates else ""


def _finals_sentence(record: StudyRecord) -> str:
    """Returns the best final runs with and without transfer; "" if one is missing."""
    best = _best_of_each(record, record.finals, lambda final: final.validation.mean)
    if best is None:
        return ""
    metric, names = METRICS[record.config.metric], []
    for final in best:
        bounds = "" if final.validation.low is None else f" (95 % interval {score_interval(final.validation, metric)})"
        name = final.name + _with_backbone(record, final.settings)
        names.append(f"{score_text(final.validation.mean, metric)}{bounds} by {name}")
    return f"In the final runs, training from scratch reaches {names[0]}, and the pretrained weights {names[1]}."


def _trials_sentence(record: StudyRecord) -> str:
    """Returns the best trials with and without transfer; "" if one is missing."""
    metric = METRICS[record.config.metric]
    found = [trial for trial in record.ranked() if not trial.diverged]
    best = _best_of_each(record, found, lambda trial: trial.score(metric.name) or 0.0)
    if best is None:
        return ""
    scores = [score_text(trial.score(metric.name), metric) for trial in best]
    trials = [f"trial {trial.number}{_with_backbone(record, trial.settings)}" for trial in best]
    names = [f"{score} in {trial}" for score, trial in zip(scores, trials, strict=True)]
    return f"Training from scratch reached {names[0]}, and the pretrained weights {names[1]}, in one run each."


def _best_of_each(record: StudyRecord, runs: Sequence[Run], score: Callable[[Run], float]) -> tuple[Run, Run] | None:
    """Returns the best run from scratch and the best one with pretrained weights; None if one is missing."""
    ordered = sorted(runs, key=score, reverse=True)
    scratch = next((run for run in ordered if is_from_scratch(run.settings)), None)
    pretrained = (run for run in ordered if _is_pretrained(record, run.settings))
    transfer = next((run for run in pretrained if not is_from_scratch(run.settings)), None)
    return None if scratch is None or transfer is None else (scratch, transfer)
