"""Table rows of a study's report: settings, finalists, test results, trials, failures and importances."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nbt.metrics import METRICS, Metric
from nbt.report.formatting import (
    DASH,
    TemplateData,
    difference_interval,
    difference_number,
    duration,
    format_interval,
    format_loss,
    format_number,
    join_words,
    one_line,
    origin_text,
    percent,
    score_interval,
    score_text,
    sparkline,
)
from nbt.report.priors.pruning import forecast_of
from nbt.report.priors.pruning_section import last_forecast_range
from nbt.report.settings_table import flat_settings, recipe_summary, setting_descriptions
from nbt.report.study.hardware import trial_location, used_several_locations
from nbt.report.study.headline import reference_of
from nbt.report.study.recommendation import current_recommendation, default_recipe_trial
from nbt.settings import TransferSettings
from nbt.tuning.storage.records import FinalRecord, StudyRecord, TestRecord, TrialRecord


def setting_rows(settings: TransferSettings, default: TransferSettings) -> tuple[TemplateData, ...]:
    """Returns one row per setting, with the value in the default recipe."""
    base, meanings = flat_settings(default), setting_descriptions()
    return tuple(
        TemplateData(
            name=name,
            value=format_number(value),
            default=format_number(base[name]),
            changed=value != base[name],
            meaning=meanings[name],
        )
        for name, value in flat_settings(settings).items()
    )


def final_row(record: StudyRecord, final: FinalRecord) -> TemplateData:
    """Returns the row of a finalist."""
    versus, (metric, reference) = final.versus_default, reference_of(record, final)
    return TemplateData(
        name=final.name,
        recipe=recipe_summary(final.settings),
        accuracy=score_text(final.validation.mean, metric),
        interval=score_interval(final.validation, metric),
        seeds=final.validation.n,
        versus=DASH if versus is None else difference_number(versus.mean, metric, reference),
        versus_interval=DASH if versus is None else difference_interval(versus, metric, reference),
        note=one_line(final.dropped),
        recommended=final.name == record.recommended,
    )


def test_row(test: TestRecord) -> TemplateData:
    """Returns the row of a test evaluation."""
    return TemplateData(
        name="default recipe" if test.name == "baseline" else test.name,
        accuracy=percent(test.accuracy.mean),
        interval=format_interval(test.accuracy),
        loss=format_loss(test.loss),
        images=test.n,
    )


def trial_rows(record: StudyRecord) -> tuple[TemplateData, ...]:
    """Returns all trials: full-length ones by rank, then pruned, running, interrupted and failed ones."""
    ranked = record.ranked()
    recommendation, baseline = current_recommendation(record), default_recipe_trial(record)
    recommended = None if recommendation is None else recommendation.trial
    in_finals = recommendation is not None and recommendation.final is not None
    marked = {"recommended" if in_finals else "best": recommended, "default recipe": baseline}
    metric = METRICS[record.config.metric]
    finite = [score for trial in record.trials for r in trial.curve if (score := r.score(metric.name)) is not None]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    show_location = used_several_locations(record.trials)
    return tuple(
        _trial_row(
            metric, trial, tuple(mark for mark, other in marked.items() if other is trial), low, high, show_location
        )
        for trial in _sorted_trials(record, ranked)
    )


def _sorted_trials(record: StudyRecord, ranked: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Returns full-length trials by rank, then pruned, running, interrupted and failed ones by their last score."""
    done = {trial.number for trial in ranked}
    order = {"complete": 0, "pruned": 1, "running": 2, "interrupted": 3, "failed": 4}
    rest = [trial for trial in record.trials if trial.number not in done]
    rest.sort(
        key=lambda trial: (order.get(trial.end, 5), -(trial.last_score(record.config.metric) or 0.0), trial.number)
    )
    return [*ranked, *rest]


def _trial_row(
    metric: Metric, trial: TrialRecord, marks: tuple[str, ...], low: float, high: float, show_location: bool
) -> TemplateData:
    state = "diverged" if trial.diverged and trial.state == "complete" else trial.end
    return TemplateData(
        number=trial.number,
        state=state,
        origin=origin_text(trial.origin),
        accuracy=score_text(trial.score(metric.name), metric),
        loss=format_loss(trial.val_loss),
        epochs=f"{len(trial.curve)}/{trial.settings.epochs}",
        seconds=duration(trial.seconds),
        recipe=recipe_summary(trial.settings),
        reason=one_line(trial.reason),
        curve=sparkline([result.score(metric.name) for result in trial.curve], low, high),
        forecast=last_forecast_range(forecast_of(trial), metric),
        location=str(trial_location(trial.facts)) if show_location else "",
        marks=marks,
    )


def failures(record: StudyRecord) -> tuple[TemplateData, ...]:
    """Returns the reasons of failed trials, the most frequent first; interrupted trials do not count as failed."""
    groups: dict[str, list[TrialRecord]] = {}
    for trial in record.trials:
        if trial.end == "failed":
            groups.setdefault(one_line(trial.reason) or "no reason recorded", []).append(trial)
    return tuple(
        TemplateData(
            reason=reason,
            trials=join_words([str(trial.number) for trial in trials]),
            traceback=str(trials[-1].facts.get("traceback") or ""),
        )
        for reason, trials in sorted(groups.items(), key=lambda item: -len(item[1]))
    )


def importance_rows(record: StudyRecord) -> tuple[TemplateData, ...]:
    """Returns the dimensions with a finite importance, the largest first."""
    shares = [(one_line(name), share) for name, share in record.importance.items() if math.isfinite(share)]
    shares.sort(key=lambda item: (-item[1], item[0]))
    return tuple(TemplateData(name=name, share=share, text=percent(share, 0)) for name, share in shares)
