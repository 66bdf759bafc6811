from __future__ import annotations

from typing import Any

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
            assert str(error).startswith("--budget ")
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


class TestAuto:
    def test_it_has_a_limit_and_a_minimum_gain(self) -> None:
        budget = Budget.parse("auto")
        assert (budget.trials, budget.seconds, budget.min_gain) == (100, None, 0.1)
        assert (budget.text, budget.option) == ("auto, at most 100", "auto")
        timed = Budget.parse("auto", max_budget="2h", min_gain=0.3)
        assert (timed.trials, timed.seconds, timed.min_gain) == (None, 7200.0, 0.3)

    def test_its_text_is_parsed_to_the_same_limit(self) -> None:
        assert Budget.parse(Budget.parse("auto", max_budget=30).text) == Budget.parse("auto", max_budget="30")

    @pytest.mark.parametrize("options", [{"max_budget": "auto"}, {"max_budget": "x"}, {"min_gain": 0.0}])
    def test_wrong_limits_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(UsageError):
            Budget.parse("auto", **options)

    def test_other_budgets_have_no_minimum_gain(self) -> None:
        assert Budget.parse("20").min_gain is None
        assert Budget.parse("20").option == "20"
