from nbt.report.study.cards.importance import Importance
from tests.report.study.cards.views import content, reason, rendered, texts
from tests.sample_study import empty_study, sample_study


def test_importance_is_sorted_and_finite() -> None:
    rows = content(Importance(), sample_study(importance={"a": 0.2, "b": 0.7, "c": float("nan")})).table.rows
    assert [texts(row)[:2] for row in rows] == [["b", "70 %"], ["a", "20 %"]]


def test_few_trials_are_a_hint_only() -> None:
    for kind in ("html", "md"):
        assert "a hint, not a finding" in rendered(Importance(), sample_study(), kind)
    assert "too few or too similar" in reason(Importance(), empty_study())


def test_intervals_stand_beside_the_importances() -> None:
    record = sample_study(importance={"a": 0.2, "b": 0.7}, load_importance_bounds=lambda: {"b": (0.31, 0.824)})
    rows = content(Importance(), record).table.rows
    assert [texts(row) for row in rows] == [["b", "70 %", "31\N{EN DASH}82 %"], ["a", "20 %", "\N{EN DASH}"]]
    for kind in ("html", "md"):
        shown = rendered(Importance(), record, kind)
        assert "31\N{EN DASH}82 %" in shown
        assert "100 bootstrap resamples" in shown
    assert "bootstrap" not in rendered(Importance(), sample_study())
