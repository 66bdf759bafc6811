"""The section of a study's report on the test images: metrics beside always guessing, classes, confusions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nbt.metrics import METRICS
from nbt.report.formatting import DASH, TemplateData, one_line, percent
from nbt.report.metric_text import (
    bounds_text,
    difference_bounds_text,
    difference_text,
    guess_text,
    value_text,
)
from nbt.training.metrics import Predictions
from nbt.tuning.finals.bootstrap import RESAMPLES
from nbt.tuning.finals.test_results import (
    ClassResult,
    TestResults,
    class_name,
    class_results,
    confusion_matrix,
    largest_confusions,
    test_results,
)
from nbt.tuning.storage.records import StudyRecord

if TYPE_CHECKING:
    import pandas as pd

MAX_MATRIX_CLASSES = 20
"""Largest number of classes whose confusion matrix is shown as a whole."""

MAX_CLASSES = 40
"""Largest number of classes in the table of classes; `test_classes.csv` has all."""

_MAX_CONFUSIONS = 15


def test_section(record: StudyRecord) -> TemplateData | None:
    """Returns the data of the section; None before the test evaluation."""
    results = test_results(record)
    if results is None:
        return None
    predictions = record.test_predictions("recommended")
    return TemplateData(
        sentences=_sentences(record, results),
        columns=tuple(_columns(results).values()),
        metrics=_metric_rows(results),
        classes=None if predictions is None else _class_table(record, predictions),
        matrix=None if predictions is None else _confusions(record, predictions),
    )


def classes_frame(record: StudyRecord) -> pd.DataFrame | None:
    """Returns the test result of the recommended settings by class, the lowest recall first.

    Returns:
        Columns label (0 ... C-1), name, images (of the test part), predicted (number of test images predicted as the
            class), recall, precision, f1 (0 ... 1, missing where they are not defined), labelled (training and
            validation images); None without stored predictions.
    """
    import pandas as pd

    predictions = record.test_predictions("recommended")
    if predictions is None:
        return None
    return pd.DataFrame([dataclasses.asdict(row) for row in _class_results(record, predictions)])


def confusion_frame(record: StudyRecord) -> pd.DataFrame | None:
    """Returns the number of test images by true class (rows) and class predicted by the recommended settings (columns).

    Both have the names of the classes in the order of their labels; None without stored predictions.
    """
    import pandas as pd

    predictions = record.test_predictions("recommended")
    if predictions is None:
        return None
    matrix = confusion_matrix(predictions)
    names = pd.Index([class_name(label, record.class_names) for label in range(len(matrix))], name="true class")
    return pd.DataFrame(matrix, index=names, columns=list(names))


def weakest_classes(record: StudyRecord) -> list[ClassResult]:
    """Returns `weakest` of the recommended settings; an empty list without stored predictions."""
    predictions = record.test_predictions("recommended")
    return [] if predictions is None else weakest(_class_results(record, predictions))


def weakest(classes: Sequence[ClassResult], limit: int = 3) -> list[ClassResult]:
    """Returns the first classes of a list that is sorted by recall, without those with a recall of 1."""
    return [row for row in classes[:limit] if row.recall is not None and row.recall < 1.0]


def _class_results(record: StudyRecord, predictions: Predictions) -> list[ClassResult]:
    return class_results(predictions, record.class_names, record.class_images)


def no_test_clause(evaluations: int) -> str:
    """Returns why there is no test result, as a clause."""
    if evaluations == 0:
        return "the test images have not been evaluated"
    often = "once" if evaluations == 1 else f"{evaluations} times"
    return f"the test images were evaluated {often} in this study, but not for this recommendation"


def _sentences(record: StudyRecord, results: TestResults) -> tuple[str, ...]:
    metric = results.recommended.metric
    sentences = [_test_evaluations_sentence(record.test_evaluations)]
    if results.difference is not None:
        sentences.append(difference_sentence(results))
    if len(results.recommended.metrics) == len(METRICS):
        sentences.append(
            "Intervals of accuracies are Wilson intervals. All others have the standard error of "
            f"{RESAMPLES} bootstrap resamples of the images; those of balanced accuracy, macro F1 and a perfect AUROC "
            "are not narrower than Wilson intervals. Log losses and AUROC are those before calibration. "
            f"{guess_text(metric).capitalize()} is evaluated on the same images."
        )
    return tuple(sentences)


def difference_sentence(results: TestResults) -> str:
    """Returns the comparison of recommendation and baseline on the same test images."""
    metric, difference = results.recommended.metric, results.difference
    assert difference is not None
    text = f"{difference_text(metric, difference.mean)} (95 % interval {difference_bounds_text(metric, difference)})"
    if difference.low is not None and difference.high is not None and difference.low <= 0 <= difference.high:
        return (
            f"On the test images, the recommendation and the default recipe cannot be distinguished: {text}, paired by "
            "image."
        )
    is_better = (difference.mean > 0) == METRICS[metric].higher_is_better
    word = "better" if is_better else "worse"
    return f"On the test images, the recommendation is {word} than the default recipe: {text}, paired by image."


def _test_evaluations_sentence(count: int) -> str:
    if count <= 1:
        return "The search did not use the test images; they were evaluated once, after the final selection."
    return (
        f"The test images were evaluated {count} times in this study, once after each finished search; a result after "
        "an earlier evaluation may be optimistic."
    )


def _columns(results: TestResults) -> dict[str, str]:
    """Returns the shown results: field of `TestResults` -> heading."""
    names = {"recommended": "recommended", "baseline": "default recipe", "majority": "always guessing"}
    return {field: name for field, name in names.items() if getattr(results, field) is not None}


def _metric_rows(results: TestResults) -> tuple[TemplateData, ...]:
    """Returns one row per metric, that of the study first, with a value and an interval per column."""
    chosen = results.recommended.metric
    rows = []
    for name in sorted(METRICS, key=lambda name: name != chosen):
        intervals = [getattr(results, field).metrics.get(name) for field in _columns(results)]
        if intervals[0] is not None:
            cells = [
                TemplateData(value=DASH, bounds=DASH)
                if interval is None
                else TemplateData(value=value_text(name, interval.mean), bounds=bounds_text(name, interval))
                for interval in intervals
            ]
            rows.append(TemplateData(label=METRICS[name].label, chosen=name == chosen, cells=tuple(cells)))
    return tuple(rows)


def _class_table(record: StudyRecord, predictions: Predictions) -> TemplateData:
    rows = _class_results(record, predictions)
    shown = tuple(
        TemplateData(
            name=one_line(row.name),
            recall=percent(row.recall),
            precision=percent(row.precision),
            f1=percent(row.f1),
            images=row.images,
            labelled=DASH if row.labelled is None else row.labelled,
        )
        for row in rows[:MAX_CLASSES]
    )
    return TemplateData(rows=shown, total=len(rows))


def _confusions(record: StudyRecord, predictions: Predictions) -> TemplateData:
    """Returns the whole matrix for few classes, else no matrix, and the most frequent errors."""
    matrix = confusion_matrix(predictions)
    names = [one_line(class_name(label, record.class_names)) for label in range(len(matrix))]
    is_small = len(names) <= MAX_MATRIX_CLASSES
    rows = [
        TemplateData(
            true=names[true],
            predicted=names[guess],
            images=images,
            share=percent(images / int(predictions.class_counts[true]), 0),
        )
        for true, guess, images in largest_confusions(matrix, _MAX_CONFUSIONS)
    ]
    return TemplateData(
        names=tuple(names) if is_small else (),
        cells=tuple(zip(names, matrix.tolist(), strict=True)) if is_small else (),
        largest=() if is_small else tuple(rows),
        errors=int(matrix.sum() - matrix.trace()),
    )
