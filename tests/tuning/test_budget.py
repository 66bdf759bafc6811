from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.errors import UsageError
from nbt.tuning.budget import Budget


class TestParse:
    @pytest.mark.parametrize(
        ("text", "trials", "seconds"),
        [
            ("20", 20, None),
            (20, 20, None),
            (" 007 ", 7, None),
            ("90s", None, 90.0),
            ("30m", None, 1800.0),
            ("2h", None, 7200.0),
            ("1.5H", None, 5400.0),
            ("2 h", None, 7200.0),
            ("1d", None, 86400.0),
        ],
    )
    def test_valid_budgets(self, text: str | int, trials: int | None, seconds: float | None) -> None:
        budget = Budget.parse(text)
        assert (budget.trials, budget.seconds) == (trials, seconds)

    @pytest.mark.parametrize(
        "text",
        [
            *("0", 0, "0h", "0.0m", "-1", -3, "", " ", "2x", "h", "1h30", "1.5", "1e3", "inf", "nan", "twenty", "²"),
            *(True, 1.5, "20 trials", "9" * 400, "9" * 400 + "h"),
        ],
    )
    def test_invalid_budgets(self, text: str | int) -> None:
        with pytest.raises(UsageError, match="budget"):
            Budget.parse(text)

    @given(st.text(max_size=8))
    def test_any_invalid_text_raises_a_usage_error(self, text: str) -> None:
        try:
            budget = Budget.parse(text)
        except UsageError as error:
            assert str(error).startswith("budget ")
        else:
            assert (budget.trials or budget.seconds or 0) > 0

    def test_text_is_parsed_to_the_same_budget(self) -> None:
        for text in ("20", "1.5h"):
            assert Budget.parse(Budget.parse(text).text) == Budget.parse(text)


def test_total_and_remaining_epochs() -> None:
    assert Budget.parse("2").total_epochs(10) == 20
    assert Budget.parse("1m").total_epochs(10) is None
    assert Budget.parse("2").remaining_epochs(10, spent=5, reserved=4) == 11
    assert Budget.parse("2").remaining_epochs(10, spent=25, reserved=0) == 0
    assert Budget.parse("2h").remaining_epochs(10, spent=25, reserved=0) is None
