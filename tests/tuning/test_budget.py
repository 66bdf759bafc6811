from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.errors import UsageError
from nbt.tuning.budget import OUT_OF_TIME, Budget


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


class TestEpochs:
    def test_a_trial_starts_only_if_the_budget_suffices_for_its_full_length(self) -> None:
        budget = Budget.parse("2")

        def can_start(spent: int, reserved: int) -> bool:
            return budget.can_start(10, spent=spent, reserved=reserved, seconds=1e9)

        assert can_start(0, 0)
        assert can_start(10, 0)
        assert can_start(0, 10)
        assert not can_start(1, 10)
        assert not can_start(11, 0)
        assert not can_start(20, 0)

    def test_a_resumed_trial_needs_fewer_epochs(self) -> None:
        budget = Budget.parse("1")
        assert budget.can_start(10, spent=6, reserved=0, seconds=0, required_epochs=4)
        assert not budget.can_start(10, spent=7, reserved=0, seconds=0, required_epochs=4)

    def test_remaining_epochs(self) -> None:
        assert Budget.parse("2").remaining_epochs(10, spent=5, reserved=4) == 11
        assert Budget.parse("2").remaining_epochs(10, spent=25, reserved=0) == 0
        assert Budget.parse("2h").remaining_epochs(10, spent=25, reserved=0) is None

    @given(
        trials=st.integers(1, 6),
        length=st.integers(1, 9),
        workers=st.integers(1, 5),
        stop=st.floats(0, 1),
        seed=st.integers(0, 10**6),
    )
    def test_it_is_never_exceeded_and_spent_while_a_trial_fits(
        self, trials: int, length: int, workers: int, stop: float, seed: int
    ) -> None:
        """Checks this for random interleavings of trials that stop after random epochs."""
        budget, rng = Budget.parse(trials), random.Random(seed)
        total = trials * length
        spent, running = 0, []

        def can_start() -> bool:
            return budget.can_start(length, spent=spent, reserved=sum(running), seconds=0)

        while True:
            while len(running) < workers and can_start():
                running.append(length)
            if not running:
                break
            index = rng.randrange(len(running))
            running[index] -= 1
            spent += 1
            assert spent + sum(running) <= total
            if running[index] == 0 or rng.random() < stop:
                running.pop(index)
        assert total - length < spent <= total


class TestTime:
    def test_trials_start_and_run_until_the_time_is_used_up(self) -> None:
        budget = Budget.parse("1m")
        assert budget.total_epochs(10) is None
        assert budget.can_start(10, spent=10**6, reserved=10**6, seconds=59.9)
        assert not budget.can_start(10, spent=0, reserved=0, seconds=60.0)
        assert budget.stop_reason(59.9) is None
        assert budget.stop_reason(60.0) == OUT_OF_TIME

    def test_no_trial_starts_without_time_for_its_full_length(self) -> None:
        budget = Budget.parse("1m")
        assert not budget.can_start(10, spent=0, reserved=0, seconds=50.0, min_trial_seconds=11.0)
        assert budget.can_start(10, spent=0, reserved=0, seconds=50.0, min_trial_seconds=10.0)

    def test_epoch_budgets_have_no_time_limit(self) -> None:
        assert Budget.parse("1").stop_reason(1e9) is None
