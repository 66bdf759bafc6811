from dataclasses import replace

import pytest

from nbt.report.study import drawn_trials as module
from nbt.report.study.cards.search import Search
from nbt.report.study.cards.trials import Trials
from nbt.report.study.drawn_trials import drawn_sentence, drawn_trials, evenly_spaced, listed_sentence
from tests.report.study.cards.views import content, rendered
from tests.sample_study import sample_study


def test_a_short_study_is_drawn_and_listed_whole() -> None:
    record = sample_study()
    assert drawn_trials(record) == list(record.trials)
    assert drawn_sentence(record) == listed_sentence(record) == ""
    assert "are drawn" not in rendered(Search(), record, "html")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DRAWN", 8)
    monkeypatch.setattr(module, "MAX_LISTED", 5)
    monkeypatch.setattr("nbt.report.study.cards.trials.MAX_LISTED", 5)


@pytest.mark.usefixtures("small")
def test_of_a_long_study_the_best_the_marked_and_evenly_spaced_trials_are_drawn() -> None:
    record = sample_study()  # 18 trials
    drawn = [trial.number for trial in drawn_trials(record)]
    best = [trial.number for trial in record.ranked()[:4]]
    assert {*best, 12, 0} <= set(drawn), "trial 12 is recommended, trial 0 the default recipe"
    assert len(drawn) <= 8 and drawn == sorted(drawn)
    assert {trial.state for trial in drawn_trials(record)} > {"complete"}, "others are drawn, too"
    assert drawn_sentence(record) == (
        f"Of 18 trials, {len(drawn)} are drawn: the best 4, and others evenly spaced; the line of the best so far and "
        "the Pareto front are those of all."
    )
    page = rendered(Search(), record, "html")
    assert drawn_sentence(record) in page
    curves = content(Search(), record).curves
    assert all(
        (f"trial {trial.number}:" in curves) == (trial.number in drawn) for trial in record.trials if trial.curve
    )


@pytest.mark.usefixtures("small")
def test_of_a_long_study_the_table_lists_the_first_trials_and_says_so() -> None:
    record = sample_study()
    card = content(Trials(), record)
    assert [row.cells[0].text for row in card.table.rows] == [str(trial.number) for trial in record.ranked()[:5]]
    assert card.sentence.endswith("The first 5 of 18 trials in this order are listed; trials.csv has all.")
    assert listed_sentence(replace(record, trials=record.trials[:5])) == ""


@pytest.mark.parametrize(
    ("n", "count", "expected"), [(10, 3, [0, 4, 8]), (3, 10, [0, 1, 2]), (0, 1, []), (4, 4, [0, 1, 2, 3])]
)
def test_evenly_spaced_items(n: int, count: int, expected: list[int]) -> None:
    assert list(evenly_spaced(range(n), count)) == expected
