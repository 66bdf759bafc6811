"""The card "final runs": the finalists, repeated with new seeds, and their differences from the default recipe."""

from __future__ import annotations

from nbt.report.formatting import (
    DASH,
    TemplateData,
    difference_interval,
    difference_number,
    one_line,
    pluralise,
    score_interval,
    score_text,
)
from nbt.report.settings_table import study_recipe_summary
from nbt.report.study import plots
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.report.study.headline import reference_of
from nbt.report.study.sentences import failed_finals_sentence, finals_sentence, left_out_sentence, optimism
from nbt.report.table import Cell, Column, Row, row, table
from nbt.tuning.storage.records import FinalRecord, StudyRecord


class Finals(Card):
    """The final runs that chose the recommendation."""

    name = "finals"
    title = "Final runs"

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns how they were run, a table of the finalists, and a drawing of their intervals."""
        record = study.record
        if not record.finals:
            return NotApplicable(
                "the best trials have not been repeated with new seeds yet: their accuracies rest on one run each, and "
                "the maximum over many trials is biased upwards"
            )
        columns = (
            Column("candidate", "w"),
            Column("validation", "n"),
            Column("95 % interval", "n"),
            Column("seeds", "n wide"),
            Column(f"difference from default, {study.metric.difference_unit}", "n"),
            Column("95 % interval", "n"),
            Column("recipe", "recipe wide"),
        )
        finalists = {*(final.name for final in record.finals), *record.failed_finals}
        best = next(iter(record.ranked()), None)
        sentences = (
            finals_sentence(record),
            optimism(record, study.recommendation),
            left_out_sentence(best, finalists, study.metric),
            failed_finals_sentence(record),
        )
        return TemplateData(
            sentences=[text for text in sentences if text],
            finalists=table("Finalists", columns, [final_row(record, final) for final in record.finals]),
            drawing=plots.finalists(record),
        )


def final_row(record: StudyRecord, final: FinalRecord) -> Row:
    """Returns the row of a finalist."""
    versus, (metric, reference) = final.versus_default, reference_of(record, final)
    is_recommended = final.name == record.recommended
    diverged = sum(run.diverged for run in final.runs)
    remark = f"{diverged} of {pluralise(len(final.runs), 'run')} diverged, counted as 0" if diverged else ""
    return row(
        Cell(final.name, badges=("recommended",) if is_recommended else ()),
        Cell(score_text(final.validation.mean, metric), note=remark),
        score_interval(final.validation, metric),
        final.validation.n,
        DASH if versus is None else difference_number(versus.mean, metric, reference),
        DASH if versus is None else difference_interval(versus, metric, reference),
        Cell(study_recipe_summary(record.config, final.settings), note=one_line(final.dropped)),
        chosen=is_recommended,
    )
