"""The card "source accuracy": what the trials forgot of the source, against what they learned of the target."""

from __future__ import annotations

from nbt.data.checks.copies import copies_text
from nbt.report.formatting import (
    DASH,
    TemplateData,
    format_interval,
    join_words,
    one_line,
    percent,
    pluralise,
    points,
    score_text,
)
from nbt.report.settings_table import study_recipe_summary
from nbt.report.study import plots
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.report.table import Column, Row, row, table
from nbt.tuning.intervals import wilson_interval
from nbt.tuning.source_accuracies import source_accuracies, source_front
from nbt.tuning.storage.records import StudyRecord, TrialRecord
from nbt.tuning.storage.source import SourceRecord

_MATCHING = {
    "names": "by name",
    "numbers": "by the numbers of the outputs",
    "order": "in the order of their names",
}


class SourceAccuracy(Card):
    """How well the trained bodies still work with the unchanged classifier of the source."""

    name = "source"
    title = "Source accuracy"

    def is_shown(self, record: StudyRecord) -> bool:
        """Returns whether the study is of a single task."""
        return record.config.scenario is None

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns the accuracies in words, a drawing, and a table of the Pareto front."""
        record = study.record
        if record.source is None:
            return NotApplicable("no images of the source were given (--source-data)")
        front = source_front(record)
        columns = (
            Column("trial", "n"),
            Column("source accuracy", "n"),
            Column("change in points", "n wide"),
            Column(study.metric.label, "n"),
            Column("recipe", "recipe"),
        )
        return TemplateData(
            label=study.metric.label,
            sentences=_sentences(record, record.source),
            drawing=plots.source_front(record),
            table=table("Pareto front of target and source", columns, [_row(study, record.source, t) for t in front]),
            has_front=bool(front),
        )


def _sentences(record: StudyRecord, source: SourceRecord) -> tuple[str, ...]:
    images = f"{pluralise(source.images, 'image')} of {pluralise(source.classes, 'class', 'classes')} of the source"
    sentences = [
        f"Measured on {images}, whose classes were matched with outputs of the weights' own classifier "
        f"{_MATCHING.get(source.matching, source.matching)}. The classifier is unchanged and gets the raw features.",
        *_copies_sentence(source),
        _reference_sentence(record, source),
    ]
    found = source_accuracies(record)
    tested = {} if found is None else {"recommendation": found.recommended, "default recipe": found.baseline}
    reached = [
        f"{percent(value)} ({name}; 95 % interval {format_interval(wilson_interval(value, source.images))})"
        for name, value in tested.items()
        if value is not None
    ]
    sentences += [f"The tested models reach {join_words(reached)}."] if reached else []
    sentences.append("The search followed the metric alone: the front is that of the trials that ran.")
    return tuple(sentences)


def _copies_sentence(source: SourceRecord) -> list[str]:
    text = copies_text(source.copies, source.near_copies)
    if not text:
        return []
    return [f"The images contain {text}, which the source accuracy counts, too: keep one of each."]


def _reference_sentence(record: StudyRecord, source: SourceRecord) -> str:
    names = [candidate.name for candidate in record.config.candidates]
    if not names:
        return f"The pretrained weights reach {percent(source.references[''])} before any training."
    by_name = {name: source.references.get("" if name == names[0] else name) for name in names}
    known = [f"{one_line(name)} {percent(value)}" for name, value in by_name.items() if value is not None]
    missing = [one_line(name) for name, value in by_name.items() if value is None]
    text = f"Before any training, the pretrained weights reach: {join_words(known)}."
    return text + (f" Not applicable to {join_words(missing)}: no usable classifier." if missing else "")


def _row(study: StudyView, source: SourceRecord, trial: TrialRecord) -> Row:
    reference, reached = source.references.get(trial.settings.backbone), trial.source_accuracy or 0.0
    return row(
        trial.number,
        percent(reached),
        DASH if reference is None else points(reached - reference),
        score_text(trial.score(study.metric.name), study.metric),
        study_recipe_summary(study.record.config, trial.settings),
        chosen=study.recommendation is not None and study.recommendation.trial is trial,
    )
