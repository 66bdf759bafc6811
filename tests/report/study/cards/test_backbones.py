from dataclasses import replace
from pathlib import Path

from nbt.report.formatting import DASH
from nbt.report.study.cards.backbones import Backbones
from nbt.report.study.report_data import build_report
from tests.report.study.backbone_study import BAD, OTHER, REFERENCE, backbone_study
from tests.report.study.cards.views import content, reason, rendered, texts
from tests.sample_study import sample_study


def test_every_backbone_has_a_row_with_what_was_expected_and_what_came() -> None:
    record = backbone_study()
    rows = [texts(row) for row in content(Backbones(), record).table.rows]
    assert [row[0] for row in rows] == [REFERENCE, OTHER, BAD]
    assert [row[1] for row in rows] == ["70 %", "65 %", "10 %"]
    assert [int(row[3]) for row in rows] == [len(record.trials) - 2, 2, 0]
    assert rows[2][4:7] == ["0", DASH, DASH]
    assert rows[1][7] == "0.8 M"


def test_the_recommended_backbone_is_marked_and_others_left_out_are_named() -> None:
    for kind in ("html", "md"):
        text = rendered(Backbones(), backbone_study(), kind)
        assert "recommended" in text
        assert "Left out: broken: no such weights." in text
        assert "1 of the backbones got none" in text
        assert f"trains {REFERENCE}" in text


def test_fronts_are_in_words_and_drawn() -> None:
    record = backbone_study()
    shown = content(Backbones(), record)
    for drawing in (shown.latency, shown.parameters):
        assert drawing.count("<title>") == 2, "the backbone without a trial has no point"
        assert "Pareto front" in drawing
    assert OTHER in shown.latency
    for kind in ("html", "md"):
        text = rendered(Backbones(), record, kind).replace("\N{NO-BREAK SPACE}", " ")
        assert f"No faster backbone reached as much as {OTHER} (" in text
        assert "2.5 ms)" in text
        assert f"No smaller backbone reached as much as {REFERENCE} (" in text


def test_studies_without_latency_have_the_front_of_size_alone() -> None:
    record = backbone_study()
    older = replace(record, candidates=tuple(replace(known, latency=None) for known in record.candidates))
    shown = content(Backbones(), older)
    assert (shown.latency, shown.parameters is None) == (None, False)
    assert "faster" not in shown.fronts
    assert [texts(row)[8] for row in shown.table.rows] == [DASH, DASH, DASH]


def test_a_single_result_has_no_front() -> None:
    record = backbone_study()
    trials = tuple(trial for trial in record.trials if trial.settings.backbone == OTHER)
    finals = tuple(final for final in record.finals if final.settings.backbone == OTHER)
    shown = content(Backbones(), replace(record, trials=trials, finals=finals))
    assert (shown.fronts, shown.latency, shown.parameters) == ("", None, None)


def test_before_the_first_full_trial_there_is_no_front() -> None:
    shown = content(Backbones(), replace(backbone_study(), trials=(), finals=(), recommended=None, test=()))
    assert (shown.fronts, shown.latency, shown.parameters) == ("", None, None)


def test_reports_of_one_backbone_do_not_have_the_card() -> None:
    assert reason(Backbones(), sample_study()) == "the search has one backbone"
    for record, is_shown in ((sample_study(), False), (backbone_study(), True)):
        cards = [made.card.name for made in build_report(record, Path("reports/birds")).cards]
        assert ("backbones" in cards) == is_shown
