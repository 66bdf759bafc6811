from nbt.report.study.cards.test_evaluation import TestEvaluation
from tests.report.study.cards.views import columns, content, reason, rendered, texts
from tests.sample_study import evaluated_study, sample_study, with_config


def test_metrics_beside_always_guessing() -> None:
    metrics = content(TestEvaluation(), evaluated_study()).metrics
    assert columns(metrics) == [
        "trained on train + validation",
        *("recommended", "95 % interval"),
        *("default recipe", "95 % interval"),
        *("always guessing", "95 % interval"),
    ]
    assert metrics.rows[0].chosen and texts(metrics.rows[0])[:2] == ["accuracy", "69.5 %"]
    stream = content(TestEvaluation(), with_config(sample_study(), scenario="class", tasks=4)).metrics
    assert columns(stream)[0] == "trained on train, task after task"


def test_few_classes_have_a_matrix() -> None:
    for kind in ("html", "md"):
        text = rendered(TestEvaluation(), evaluated_study(classes=4), kind)
        for fact in ("25.0 %", "macro F1", "bird 3", "by true class (rows)", "expected calibration error"):
            assert fact in text, fact
        assert "test_confusion.csv" not in text
    html = rendered(TestEvaluation(), evaluated_study(classes=4))
    assert html.count('class="right"') == 4 and html.count('class="wrong"') == 12


def test_many_classes_have_the_largest_confusions_and_the_weakest_classes() -> None:
    many = evaluated_study(classes=100, images=4000)
    for kind in ("html", "md"):
        text = rendered(TestEvaluation(), many, kind).replace("`", "").replace("<code>", "").replace("</code>", "")
        for fact in ("weakest of 100 classes; test_classes.csv has all", "errors; test_confusion.csv has all"):
            assert fact in text, fact
        assert "by true class (rows)" not in text
    assert len(rendered(TestEvaluation(), many)) < 40_000


def test_without_predictions_there_are_stored_values_only() -> None:
    card = content(TestEvaluation(), sample_study())
    assert [texts(row)[0] for row in card.metrics.rows] == ["accuracy", "log loss"]
    assert card.classes is None
    for count, often in ((1, "once"), (3, "3 times")):
        why = reason(TestEvaluation(), sample_study(test=(), test_evaluations=count))
        assert why == f"the test images were evaluated {often} in this study, but not for this recommendation"
    assert (
        reason(TestEvaluation(), sample_study(test=(), test_evaluations=0)) == "the test images have not been evaluated"
    )
