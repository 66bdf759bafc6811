from dataclasses import replace

import pytest

from nbt.report.study.cards.answer import Answer, next_step, tiles
from nbt.tuning.storage.records import StudyRecord
from tests.report.study.cards.views import content, facts, rendered, view
from tests.sample_study import (
    curve,
    empty_study,
    evaluated_study,
    interrupted,
    sample_study,
    trial,
    unfinished_study,
)


@pytest.mark.parametrize("record", [sample_study(), unfinished_study(), empty_study()])
def test_the_headline_comes_first_in_both_formats(record: StudyRecord) -> None:
    headline = content(Answer(), record).headline
    assert rendered(Answer(), record).startswith(f'<p class="headline">{headline}')
    assert rendered(Answer(), record, "md").startswith("**")


def test_tiles_of_a_finished_study() -> None:
    guessing = "Always guessing the largest class"
    found = facts(tiles(view(evaluated_study())))
    assert list(found) == ["Test accuracy", "Test of the default recipe", guessing, "Validation accuracy"]
    assert found["Test accuracy"].startswith("69.5 % 66.8")
    assert found["Test of the default recipe"].startswith("65.1 % 62.3")
    assert "recommended +4.4 points, +" in found["Test of the default recipe"]
    assert found[guessing].startswith("2.0 % 1.4")
    assert "minus test +1.1 points, \N{MINUS SIGN}1.6 to +4.0" in found["Validation accuracy"]


def test_tiles_without_predictions() -> None:
    found = facts(tiles(view(sample_study())))
    assert found["Always guessing the largest class"] == "\N{EN DASH} no stored predictions"
    same = facts(tiles(view(sample_study(recommended="default recipe"))))
    assert same["Test of the default recipe"] == "the same the default recipe is recommended"


def test_tiles_before_the_test() -> None:
    found = facts(tiles(view(sample_study(test=()))))
    assert list(found) == ["Validation accuracy", "Difference from default", "Test accuracy", "Cost of the trials"]
    assert found["Difference from default"] == "+4.5 points +4.1 to +4.9, paired"
    timed = facts(tiles(view(sample_study(budget="30m", epochs_budget=None, test=()))))
    assert timed["Time spent"].startswith("10 min 12 s of 30m")
    listed = (interrupted(0), trial(1, curve=curve(0.5)), interrupted(2))
    assert "1 trial," in facts(tiles(view(empty_study(trials=listed))))["Cost of the trials"]


def test_the_next_step_follows_from_the_state_of_the_study() -> None:
    assert "larger --budget" in next_step(view(empty_study()))
    assert "the same command continues it" in next_step(view(unfinished_study()))
    assert "stands under Reproduce" in next_step(view(sample_study()))
    assert next_step(view(sample_study(), has_model=True)).endswith("nbt predict reports/birds/model IMAGES...")


def test_an_error_of_a_check_comes_before_the_use_of_the_model() -> None:
    wrong = {"code": "NBT101", "title": "t", "severity": "error", "state": "failed", "message": "m", "advice": "Look."}
    record = evaluated_study(dataset={"checks": [wrong]})
    assert next_step(view(record, has_model=True)) == "Before you use this result, see NBT101: Look."
    warned = replace(record, dataset={"checks": [{**wrong, "severity": "warning"}]})
    assert "nbt predict" in next_step(view(warned, has_model=True))
    for kind in ("html", "md"):
        assert "NBT101" in rendered(Answer(), warned, kind)


def test_notes_are_one_line() -> None:
    assert content(Answer(), sample_study(notes=("a\nb",))).notes == ("a b",)
