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
    def test_what_it_reads(self, text: str | int, trials: int | None, seconds: float | None) -> None:
        budget = Budget.parse(text)
        assert (budget.trials, budget.seconds) == (trials, seconds)

    @pytest.mark.parametrize(
        "text",
        [
            *("0", 0, "0h", "0.0m", "-1", -3, "", " ", "2x", "h", "1h30", "1.5", "1e3", "inf", "nan", "twenty", "²"),
            *(True, 1.5, "20 trials", "9" * 400, "9" * 400 + "h"),
        ],
    )
    def test_what_it_refuses(self, text: str | int) -> None:
        with pytest.raises(UsageError, match="budget"):
            Budget.parse(text)

    @given(st.text(max_size=8))
    def test_garbage_is_refused_in_one_way(self, text: str) -> None:
        try:
            budget = Budget.parse(text)
        except UsageError as error:
            assert str(error).startswith("budget ")
        else:
            assert (budget.trials or budget.seconds or 0) > 0

    def test_its_text_reads_back(self) -> None:
        for text in ("20", "1.5h"):
            assert Budget.parse(Budget.parse(text).text) == Budget.parse(text)


class TestEpochs:
    def test_a_trial_starts_only_if_all_of_it_fits(self) -> None:
        budget = Budget.parse("2")

        def may(spent: int, reserved: int) -> bool:
            return budget.can_start(10, spent=spent, reserved=reserved, seconds=1e9)

        assert may(0, 0)
        assert may(10, 0)
        assert may(0, 10)
        assert not may(1, 10)
        assert not may(11, 0)
        assert not may(20, 0)

    def test_what_continues_needs_less(self) -> None:
        budget = Budget.parse("1")
        assert budget.can_start(10, spent=6, reserved=0, seconds=0, required_epochs=4)
        assert not budget.can_start(10, spent=7, reserved=0, seconds=0, required_epochs=4)

    def test_left(self) -> None:
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
    def test_it_is_never_passed_and_never_left_while_a_trial_fits(
        self, trials: int, length: int, workers: int, stop: float, seed: int
    ) -> None:
        """Any interleaving of trials of which any may stop anywhere spends at most the total."""
        budget, chance = Budget.parse(trials), random.Random(seed)
        total = trials * length
        spent, running = 0, []

        def can_start() -> bool:
            return budget.can_start(length, spent=spent, reserved=sum(running), seconds=0)

        while True:
            while len(running) < workers and can_start():
                running.append(length)
            if not running:
                break
            which = chance.randrange(len(running))
            running[which] -= 1
            spent += 1
            assert spent + sum(running) <= total
            if running[which] == 0 or chance.random() < stop:
                running.pop(which)
        assert total - length < spent <= total


class TestTime:
    def test_trials_start_and_run_until_it_is_over(self) -> None:
        budget = Budget.parse("1m")
        assert budget.total_epochs(10) is None
        assert budget.can_start(10, spent=10**6, reserved=10**6, seconds=59.9)
        assert not budget.can_start(10, spent=0, reserved=0, seconds=60.0)
        assert budget.stop_reason(59.9) is None
        assert budget.stop_reason(60.0) == OUT_OF_TIME

    def test_no_trial_starts_that_could_only_be_stopped(self) -> None:
        budget = Budget.parse("1m")
        assert not budget.can_start(10, spent=0, reserved=0, seconds=50.0, min_trial_seconds=11.0)
        assert budget.can_start(10, spent=0, reserved=0, seconds=50.0, min_trial_seconds=10.0)

    def test_epoch_budgets_know_no_time(self) -> None:
        assert Budget.parse("1").stop_reason(1e9) is None
