"""The section on the test images: comparison, metrics, classes and confusions."""

from nbt.report.study import test_section as section
from tests.sample_study import empty_study, evaluated_study, sample_study


def test_sentences() -> None:
    first, second, third = section.test_section(evaluated_study()).sentences
    assert "evaluated once, after the final selection" in first
    assert second.startswith(
        "On the test images, the recommendation is better than the default recipe: +4.4 points (95 %"
    )
    assert third.endswith("Always guessing the largest class is evaluated on the same images.")
    assert "3 times in this study" in section.test_section(sample_study(test_evaluations=3)).sentences[0]
    assert section.test_section(empty_study()) is None


def test_the_metric_of_the_study_comes_first() -> None:
    data = section.test_section(evaluated_study())
    assert data.columns == ("recommended", "default recipe", "always guessing")
    assert [(row.label, row.chosen) for row in data.metrics][:2] == [("accuracy", True), ("balanced accuracy", False)]
    assert [row.label for row in data.metrics] == ["accuracy", "balanced accuracy", "macro F1", "AUROC", "log loss"]
    assert data.metrics[4].cells[0].value.endswith(" nats")


def test_without_predictions_there_are_stored_values_only() -> None:
    data = section.test_section(sample_study())
    assert [row.label for row in data.metrics] == ["accuracy", "log loss"]
    assert (data.classes, data.matrix) == (None, None)
    assert section.classes_frame(sample_study()) is None
    assert section.confusion_frame(sample_study()) is None
    assert section.weakest_classes(sample_study()) == []


def test_long_tables_are_cut() -> None:
    data = section.test_section(evaluated_study(classes=100, images=4000))
    assert (len(data.classes.rows), data.classes.total) == (section.MAX_CLASSES, 100)
    assert (data.matrix.cells, len(data.matrix.largest)) == ((), 15)
    small = section.test_section(evaluated_study(classes=4))
    assert (len(small.matrix.cells), small.matrix.largest) == (4, ())


def test_frames_have_all_classes() -> None:
    record = evaluated_study(classes=100, images=4000)
    classes, confusion = section.classes_frame(record), section.confusion_frame(record)
    assert list(classes["recall"]) == sorted(classes["recall"])
    assert set(classes["name"]) == set(record.class_names)
    assert (confusion.shape, confusion.to_numpy().sum()) == ((100, 100), 4000)
    assert confusion.loc["bird 7"].sum() == classes.set_index("name").loc["bird 7", "images"]
    weakest = section.weakest_classes(record)
    assert [row.name for row in weakest] == list(classes["name"][:3])
