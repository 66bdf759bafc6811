"""The card "test results": all metrics beside always guessing, the confusion matrix, and the classes."""

from __future__ import annotations

from nbt.report.formatting import TemplateData
from nbt.report.study.calibration import calibration_sentence
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.report.study.test_section import no_test_clause, test_section
from nbt.report.table import Column, Row, Table, row, table, table_of


class TestEvaluation(Card):
    """Results on the test images."""

    __test__ = False  # keeps pytest from collecting the class
    name = "test"
    title = "Test results"

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns sentences, and tables of metrics, confusions and classes."""
        section = test_section(study.record)
        if section is None:
            return NotApplicable(no_test_clause(study.record.test_evaluations))
        trained_on = "train + validation" if study.record.config.scenario is None else "train, task after task"
        return TemplateData(
            sentences=section.sentences,
            metrics=_metric_table(section, trained_on),
            confusions=None if section.matrix is None else section.matrix,
            largest=None if section.matrix is None else _confusion_table(section.matrix),
            classes=None if section.classes is None else _class_table(section.classes),
            n_classes=0 if section.classes is None else section.classes.total,
            calibration=calibration_sentence(study.record),
        )


def _metric_table(section: TemplateData, trained_on: str) -> Table:
    columns = [Column(f"trained on {trained_on}")]
    for name in section.columns:
        columns += [Column(name, "n"), Column("95 % interval", "n wide")]
    rows: list[Row] = []
    for metric in section.metrics:
        cells = [text for cell in metric.cells for text in (cell.value, cell.bounds)]
        rows.append(row(metric.label, *cells, chosen=metric.chosen))
    return table("Metrics on the test images", columns, rows)


def _confusion_table(matrix: TemplateData) -> Table:
    return table_of(
        "Most frequent errors",
        matrix.largest,
        true=Column("true class", "w"),
        predicted=Column("predicted class", "w"),
        images=Column("images", "n"),
        share=Column("share of the class", "n"),
    )


def _class_table(classes: TemplateData) -> Table:
    return table_of(
        "Test results by class",
        classes.rows,
        name=Column("class", "w"),
        recall=Column("recall", "n"),
        precision=Column("precision", "n"),
        f1=Column("F1", "n wide"),
        images=Column("test images", "n"),
        labelled=Column("labelled images", "n wide"),
    )
