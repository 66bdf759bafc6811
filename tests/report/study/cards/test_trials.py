from dataclasses import replace

from nbt.report.formatting import DASH
from nbt.report.study.cards.trials import Trials, trial_rows
from nbt.tuning.storage.records import StudyRecord, TrialRecord
from tests.report.study.cards.views import columns, content, reason, rendered, texts, view
from tests.sample_study import (
    curve,
    empty_study,
    finals,
    interrupted,
    sample_study,
    spread_study,
    study_with_priors,
    trial,
    unfinished_study,
)


def numbers(record: StudyRecord) -> list[str]:
    return [texts(row)[0] for row in trial_rows(view(record))]


def marks(record: StudyRecord) -> dict[str, tuple[str, ...]]:
    return {texts(row)[0]: row.cells[1].badges for row in trial_rows(view(record)) if row.cells[1].badges}


def test_trials_are_sorted_by_state_and_score() -> None:
    assert numbers(unfinished_study())[:3] == ["12", "14", "17"]
    states = [texts(row)[1] for row in trial_rows(view(unfinished_study()))]
    assert states == sorted(states, key=["complete", "diverged", "pruned", "running", "failed"].index)
    assert len(states) == 19
    listed = (interrupted(0), trial(1, curve=curve(0.5)), interrupted(2))
    assert numbers(empty_study(trials=listed)) == ["1", "0", "2"]


def test_recommended_and_default_trials_are_marked() -> None:
    assert marks(unfinished_study()) == {"12": ("best",), "0": ("default recipe",)}
    listed = finals()
    record = sample_study(recommended="trial 14", finals=(listed[2], *listed[:2]))
    assert marks(record) == {"14": ("recommended",), "0": ("default recipe",)}
    assert marks(sample_study(recommended="default recipe")) == {"0": ("recommended", "default recipe")}


def test_sparklines_cover_the_range_of_all_curves() -> None:
    close = tuple(trial(i, curve=curve(0.95 + i / 100)[-4:]) for i in range(3))
    assert len(set("".join(texts(row)[4] for row in trial_rows(view(empty_study(trials=close)))))) > 3


def test_trial_row() -> None:
    row = next(row for row in trial_rows(view(sample_study())) if row.cells[0].text == "16")
    _, state, value, loss, line, forecast, epochs, *_ = texts(row)
    assert (state, value, loss, forecast, epochs) == ("pruned", DASH, DASH, "", "4/12"), "a stopped trial has no value"
    assert len(line) == 4
    assert row.cells[-1].note == "sampler; rank 5 of 6 after 4 epochs"


def test_the_loss_decides_exact_ties_only() -> None:
    """A recipe with a high cross-entropy, as of label smoothing, is not ranked below a less accurate one."""

    def smoothed(number: int, accuracy: float) -> TrialRecord:
        return trial(number, curve=tuple(replace(r, val_loss=(r.val_loss or 0) + 1) for r in curve(accuracy)))

    plain = trial(2, curve=curve(0.69))
    record = replace(empty_study(trials=(plain, smoothed(1, 0.70), smoothed(3, 0.69))), noise=0.02)
    assert numbers(record) == ["1", "2", "3"]


def test_columns_without_values_are_left_out() -> None:
    assert "last forecast" not in columns(content(Trials(), sample_study()).table)
    assert "last forecast" in columns(content(Trials(), study_with_priors()).table)
    assert "ran on" not in columns(content(Trials(), sample_study()).table)
    table = content(Trials(), spread_study()).table
    where = columns(table).index("ran on")
    assert sum(texts(row)[where] == "beta, GPU 0" for row in table.rows) == 6
    assert reason(Trials(), empty_study()) == "no trial has been started"


def test_many_trials_are_folded() -> None:
    listed = tuple(trial(i, "failed", reason=f"reason {i}") for i in range(40))
    for kind in ("html", "md"):
        text = rendered(Trials(), sample_study(trials=listed, finals=()), kind)
        assert "<summary>25 more</summary>" in text and "reason 39" in text
