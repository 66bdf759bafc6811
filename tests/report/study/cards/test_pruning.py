from nbt.report.study.cards.pruning import Pruning
from tests.report.study.cards.views import content, reason, rendered, texts
from tests.sample_study import forecast, sample_study, study_with_priors, trial


def test_unpromising_trials_and_their_outcomes() -> None:
    rows = [texts(row) for row in content(Pruning(), study_with_priors()).table.rows]
    assert len(rows) == 10
    control = next(row for row in rows if row[0] == "10")
    assert control[1] == "control, not stopped"
    assert control[7] == "65.5 %, beat it"
    stopped = next(row for row in rows if row[0] == "16")
    assert (stopped[1], stopped[4], stopped[8]) == ("stopped", "45.0–55.0 %", "rank 5 of 6 after 4 epochs")  # noqa: RUF001


def test_many_are_folded() -> None:
    stopped = {"forecast": forecast(0.5, last=2, would_stop=2)}
    record = sample_study(trials=tuple(trial(i, "pruned", facts=stopped) for i in range(40)), finals=())
    assert rendered(Pruning(), record).count("<td>stopped</td>") == 40
    assert rendered(Pruning(), record, "md").count("| stopped |") == 40


def test_without_forecasts_there_is_no_table() -> None:
    damaged = trial(0, "pruned", facts={"forecast": {"rows": [[None]], "control": "x"}})
    assert "no trial with a forecast" in reason(Pruning(), sample_study(trials=(damaged,)))
