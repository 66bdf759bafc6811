from nbt.report.study.cards.search import Search
from tests.report.study.cards.views import content, reason, rendered
from tests.sample_study import curve, empty_study, sample_study, study_with_priors, trial


def test_drawings_and_pruning() -> None:
    card = content(Search(), study_with_priors())
    assert None not in (card.best, card.curves, card.front, card.forecasts)
    for kind in ("html", "md"):
        text = rendered(Search(), study_with_priors(), kind)
        assert "7 trials were stopped early (pruner fit), which saved 64 epochs" in text
        assert "both better and faster to train than trial 1 (54.8 %, 4." in text
        assert "trial 12 (71.2 %, 3" in text
        assert "a false-stop rate of 50.0 %" in text
    assert content(Search(), sample_study()).forecasts is None


def test_trial_stopped_by_the_budget_is_no_stopped_trial() -> None:
    ended = trial(0, "pruned", curve=curve(0.4, epochs=4), reason="epoch budget used up")
    assert content(Search(), empty_study(trials=(ended,))).pruning[0].endswith("The end of the budget stopped 1 trial.")


def test_without_trials_there_is_nothing_to_show() -> None:
    assert reason(Search(), empty_study()) == "no trial has been started"
