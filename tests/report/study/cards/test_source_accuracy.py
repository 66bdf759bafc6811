from __future__ import annotations

from dataclasses import replace

import pytest

from nbt.report.study.cards.source_accuracy import SourceAccuracy
from nbt.tuning.storage.candidates import CandidateConfig
from nbt.tuning.storage.records import StudyRecord
from nbt.tuning.storage.source import SourceRecord
from tests.report.study.cards.views import columns, content, reason, rendered, texts
from tests.sample_study import sample_study, trials, with_config

# Trial 12 is the best on the target, trial 1, a linear probe, keeps the source; trial 3 is worse in both than trial 8.
ACCURACIES = {0: 0.02, 1: 0.81, 2: 0.3, 3: 0.35, 8: 0.5, 10: 0.01, 12: 0.4, 14: 0.4, 17: 0.45, 7: 0.0}


def measured(**changes: object) -> StudyRecord:
    recommended, baseline = sample_study().test
    values = {
        "trials": tuple(replace(trial, source_accuracy=ACCURACIES.get(trial.number)) for trial in trials()),
        "test": (replace(recommended, source_accuracy=0.42), replace(baseline, source_accuracy=0.03)),
        "source": SourceRecord(images=140, classes=7, matching="names", references={"": 0.81}),
    }
    return sample_study(**{**values, **changes})


def test_the_front_is_listed_the_best_on_the_target_first() -> None:
    table = content(SourceAccuracy(), measured()).table
    assert columns(table)[:4] == ["trial", "source accuracy", "change in points", "accuracy"]
    shown = [[text.replace("\N{NO-BREAK SPACE}", " ") for text in texts(row)[:4]] for row in table.rows]
    assert [row[0] for row in shown] == ["12", "17", "8", "1"]
    assert shown[0] == ["12", "40.0 %", "\N{MINUS SIGN}41.0", "71.2 %"]
    assert shown[-1] == ["1", "81.0 %", "+0.0", "54.8 %"]
    assert [row.chosen for row in table.rows] == [True, False, False, False]


@pytest.mark.parametrize("kind", ["html", "md"])
def test_reference_and_tested_models_are_named(kind: str) -> None:
    shown = rendered(SourceAccuracy(), measured(), kind)
    assert "140 images of 7 classes of the source" in shown
    assert "pretrained weights reach 81.0 % before any training" in shown
    reached = "42.0 % (recommendation; 95 % interval 34.1\N{EN DASH}50.3 %) and 3.0 % (default recipe; 95 % interval"
    assert f"The tested models reach {reached}" in shown
    assert "identical" not in shown
    assert "The search followed the metric alone" in shown


def test_identical_images_are_counted() -> None:
    source = SourceRecord(images=140, classes=7, matching="names", references={"": 0.81}, copies=3)
    shown = rendered(SourceAccuracy(), measured(source=source))
    assert "The images contain 3 identical copies, which the source accuracy counts, too" in shown
    shown = rendered(SourceAccuracy(), measured(source=replace(source, copies=0, near_copies=1)))
    assert "The images contain 1 near copy (or frame of one scene), which the source accuracy counts, too" in shown


def test_every_measured_trial_is_drawn_and_the_front_is_marked() -> None:
    drawing = content(SourceAccuracy(), measured()).drawing
    assert drawing.count("<title>trial") == 9, "the diverged trial is left out"
    assert "trial 8: 68.9" in drawing and "source 50.0" in drawing
    for label in ("Pareto front", "pretrained weights", "default recipe", "trial 12, recommended"):
        assert label in drawing


def test_without_source_images_it_is_not_applicable() -> None:
    assert "--source-data" in reason(SourceAccuracy(), sample_study())
    assert not SourceAccuracy().is_shown(with_config(sample_study(), scenario="class", tasks=4))


def test_before_the_first_complete_trial_only_the_reference_is_known() -> None:
    record = measured(trials=(), finals=(), recommended=None, test=())
    assert content(SourceAccuracy(), record).drawing is None
    for kind in ("html", "md"):
        shown = rendered(SourceAccuracy(), record, kind)
        assert "81.0 %" in shown and "<table" not in shown and "| trial" not in shown


def test_backbones_without_a_classifier_are_named() -> None:
    names = ("mobilenet_v2", "resnet18", "tiny")
    listed = tuple(CandidateConfig(name=n, backbone=n, weights="w", weights_hash=n, image_size=96) for n in names)
    source = SourceRecord(images=9, classes=3, matching="order", references={"": 0.81, "resnet18": 0.7})
    record = with_config(measured(source=source), candidates=listed)
    shown = rendered(SourceAccuracy(), record)
    assert "mobilenet_v2 81.0 % and resnet18 70.0 %" in shown
    assert "Not applicable to tiny" in shown and "in the order of their names" in shown
    assert "pretrained weights</text>" not in shown, "no line for several references"
