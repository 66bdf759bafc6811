from nbt.report.study.cards.other_checks import OtherChecks
from tests.report.study.cards.views import content, rendered, texts, view
from tests.sample_study import evaluated_study


def test_checks_that_did_not_fail() -> None:
    card, checks = content(OtherChecks(), evaluated_study()), view(evaluated_study()).checks
    assert [texts(row)[0] for row in card.table.rows] == [check.code for check in checks if not check.is_failed]
    assert "passed" in card.sentence and "not applicable" in card.sentence
    for kind in ("html", "md"):
        assert "not applicable" in rendered(OtherChecks(), evaluated_study(), kind)
