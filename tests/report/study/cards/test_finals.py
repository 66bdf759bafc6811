from dataclasses import replace

from nbt.report.study.cards.finals import Finals
from tests.report.study.cards.views import content, reason, rendered, texts
from tests.sample_study import curve, diverged_curve, sample_study, trial, unfinished_study


def test_finalists() -> None:
    card = content(Finals(), sample_study())
    first, default, dropped = card.finalists.rows
    assert texts(first)[:6] == ["trial 12", "70.6 %", "69.6–71.6 %", "5", "+4.5", "+4.1 to +4.9"]  # noqa: RUF001
    assert (first.chosen, first.cells[0].badges) == (True, ("recommended",))
    assert texts(default)[4:6] == ["\N{EN DASH}"] * 2
    assert dropped.cells[-1].note == "worse than trial 12 after 3 seeds"
    for kind in ("html", "md"):
        text = rendered(Finals(), sample_study(), kind)
        assert "worse than trial 12 after 3 seeds" in text
        assert "selected among 10 full-length trials" in text


def test_before_the_finals_the_card_warns_of_the_bias() -> None:
    assert "biased upwards" in reason(Finals(), unfinished_study())


def test_the_best_trial_is_said_to_be_left_out() -> None:
    record = sample_study()
    record = replace(record, trials=(*record.trials, trial(18, curve=curve(0.75, seed=18))))
    said = "Trial 18 has the best value of a single run, 75.0 %, but is not a finalist"
    assert any(said in sentence for sentence in content(Finals(), record).sentences)
    assert not any("not a finalist" in sentence for sentence in content(Finals(), sample_study()).sentences)


def test_finalists_without_runs_and_diverged_runs_are_said() -> None:
    record = sample_study(failed_finals={"trial 3": "a final run failed: OSError: no space"})
    first, *others = record.finals
    runs = (*first.runs[:-1], replace(first.runs[-1], curve=diverged_curve()))
    card = content(Finals(), replace(record, finals=(replace(first, runs=runs), *others)))
    assert card.finalists.rows[0].cells[1].note == "1 of 5 runs diverged, counted as 0"
    assert card.sentences[-1] == "Trial 3 is not listed: a final run failed: OSError: no space."
