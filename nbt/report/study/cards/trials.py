"""The card "trials": the trials of the search."""

from __future__ import annotations

from collections.abc import Sequence

from nbt.metrics import METRICS
from nbt.report.formatting import (
    TemplateData,
    duration,
    format_loss,
    one_line,
    origin_text,
    score_text,
    sparkline,
)
from nbt.report.priors.pruning import forecast_of
from nbt.report.priors.pruning_section import last_forecast_range
from nbt.report.settings_table import study_recipe_summary
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.report.study.drawn_trials import MAX_LISTED, listed_sentence
from nbt.report.study.hardware import trial_location, used_several_locations
from nbt.report.study.recommendation import default_recipe_trial
from nbt.report.study.sentences import ranking_sentence
from nbt.report.table import Cell, Column, Row, row, table
from nbt.tuning.storage.records import StudyConfig, StudyRecord, TrialRecord


class Trials(Card):
    """Each trial with its value, its curve, its recipe and how it ended."""

    name = "trials"
    title = "Trials"
    is_folded = True

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns the table of the trials and how they are ordered."""
        record, metric = study.record, study.metric
        if not record.trials:
            return NotApplicable("no trial has been started")
        shown = {
            Column("trial", "n"): True,
            Column("state", "w"): True,
            Column(metric.label, "n"): True,
            Column("loss", "n wide"): True,
            Column("curve", "spark wide"): True,
            Column("last forecast", "n wide"): any(forecast_of(trial) is not None for trial in record.trials),
            Column("epochs", "n wide"): True,
            Column("time", "n wide"): True,
            Column("ran on", "wide remark"): used_several_locations(record.trials),
            Column("recipe, origin, reason", "recipe"): True,
        }
        rows = [_selected(listed, list(shown.values())) for listed in trial_rows(study)]
        columns = [column for column, is_shown in shown.items() if is_shown]
        sentence = " ".join(filter(None, (ranking_sentence(record), listed_sentence(record))))
        return TemplateData(sentence=sentence, table=table("Trials", columns, rows))


def _selected(listed: Row, shown: Sequence[bool]) -> Row:
    return Row(tuple(cell for cell, is_shown in zip(listed.cells, shown, strict=True) if is_shown), listed.chosen)


def trial_rows(study: StudyView) -> list[Row]:
    """Returns the first `MAX_LISTED` trials: full-length ones by rank, then pruned, running and others."""
    record, metric = study.record, study.metric
    recommended = None if study.recommendation is None else study.recommendation.trial
    in_finals = study.recommendation is not None and study.recommendation.final is not None
    marked = {"recommended" if in_finals else "best": recommended, "default recipe": default_recipe_trial(record)}
    finite = [score for trial in record.trials for r in trial.curve if (score := r.score(metric.name)) is not None]
    limits = min(finite, default=0.0), max(finite, default=1.0)
    return [
        _trial_row(record.config, trial, tuple(mark for mark, other in marked.items() if other is trial), limits)
        for trial in _sorted_trials(record)[:MAX_LISTED]
    ]


def _sorted_trials(record: StudyRecord) -> list[TrialRecord]:
    """Returns full-length trials by rank, then pruned, running, interrupted and failed ones by their last score."""
    ranked = record.ranked()
    done = {trial.number for trial in ranked}
    order = {"complete": 0, "pruned": 1, "running": 2, "interrupted": 3, "failed": 4}
    rest = [trial for trial in record.trials if trial.number not in done]
    rest.sort(
        key=lambda trial: (order.get(trial.end, 5), -(trial.last_score(record.config.metric) or 0.0), trial.number)
    )
    return [*ranked, *rest]


def _trial_row(config: StudyConfig, trial: TrialRecord, marks: tuple[str, ...], limits: tuple[float, float]) -> Row:
    metric = METRICS[config.metric]
    state = "diverged" if trial.diverged and trial.state == "complete" else trial.end
    origin = "; ".join(text for text in (origin_text(trial.origin), one_line(trial.reason)) if text)
    return row(
        trial.number,
        Cell(state, badges=marks),
        score_text(trial.score(metric.name), metric),
        format_loss(trial.val_loss),
        sparkline([result.score(metric.name) for result in trial.curve], *limits),
        last_forecast_range(forecast_of(trial), metric),
        f"{len(trial.curve)}/{trial.settings.epochs}",
        duration(trial.seconds),
        str(trial_location(trial.facts)),
        Cell(study_recipe_summary(config, trial.settings), note=origin),
        chosen=bool({"best", "recommended"}.intersection(marks)),
    )
