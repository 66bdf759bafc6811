from dataclasses import replace

import pytest

from nbt.report.study.cards.facts import Facts, budget_facts, study_facts
from tests.report.study.cards.views import content, facts, rendered
from tests.sample_study import CREATED, curve, empty_study, interrupted, sample_study, trial, with_config


def test_budget_facts() -> None:
    spent = facts(budget_facts(sample_study()))
    assert spent["Budget"] == "the cost of 14 trials of the default recipe"
    assert spent["Cost of the trials"].startswith("10.8 of 14 trials (77 %) estimated")
    assert spent["Trials"] == "18 10 full-length, 7 pruned and 1 failed"
    assert spent["Diverged"].startswith("1 ")
    assert spent["Saved by pruning"] == "64 epochs not trained; pruner asha"
    assert spent["Time of the search"] == "10 min 12 s"
    assert spent["Final runs"] == "13 156 epochs, not included in the budget"
    timed = replace(sample_study(), budget="30m", epochs_budget=None)
    assert facts(budget_facts(timed))["Budget"] == "30m"
    assert content(Facts(), timed).share_spent is None
    listed = (interrupted(0), trial(1, curve=curve(0.5)), interrupted(2))
    stopped = facts(budget_facts(empty_study(trials=listed)))["Trials"]
    assert stopped == "3 1 full-length, 0 pruned, 0 failed and 2 interrupted"


def test_trial_stopped_by_the_budget_saves_no_epochs() -> None:
    ended = trial(0, "pruned", curve=curve(0.4, epochs=4), reason="epoch budget used up")
    assert "Saved by pruning" not in facts(budget_facts(empty_study(trials=(ended,))))


def test_budget_share_is_at_most_one() -> None:
    assert content(Facts(), sample_study()).share_spent == pytest.approx(130 / 168)
    assert content(Facts(), sample_study(epochs_budget=5 * 12)).share_spent == 1.0


def test_study_facts() -> None:
    found = facts(study_facts(sample_study()))
    assert found["Hardware"] == "cpu, float32"
    assert (found["Validation images"], found["Unreadable images"]) == ("299", "1")
    assert found["Started"] == CREATED.strftime("%Y-%m-%d %H:%M UTC")
    bare = facts(study_facts(sample_study(dataset={}, trials=(), created=None)))
    assert "Classes" not in bare
    assert "Hardware" not in bare
    assert facts(study_facts(with_config(sample_study(), dataset="d\ne")))["Dataset"] == "d e"


def test_the_time_of_the_whole_names_its_phases() -> None:
    clock = dict.fromkeys(("profile", "report"), 0.0) | {"prepare": 4.0, "trials": 600.0, "finals": 90.0, "train": 30.0}
    spent = facts(budget_facts(sample_study(clock={**clock, "estimate": 1.0})))
    assert spent["Time of the whole"] == "12 min 04 s prepare 4.0 s, trials 10 min 00 s, finals 1 min 30 s, train 30 s"
    assert "Time of the whole" not in facts(budget_facts(sample_study())), "studies of earlier versions"


def test_both_formats() -> None:
    for kind in ("html", "md"):
        for fact in ("the cost of 14 trials of the default recipe", "10.8 of 14 trials (77 %)"):
            assert fact in rendered(Facts(), sample_study(), kind)
