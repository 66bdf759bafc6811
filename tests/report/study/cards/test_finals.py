from nbt.report.study.cards.finals import Finals
from tests.report.study.cards.views import content, reason, rendered, texts
from tests.sample_study import sample_study, unfinished_study


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
