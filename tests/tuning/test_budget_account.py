from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.tuning.budget import OUT_OF_EPOCHS, OUT_OF_TIME, Budget
from nbt.tuning.budget_account import BudgetAccount


class Stopwatch:
    """Elapsed seconds that change only when they are set."""

    def __init__(self, elapsed: float = 0.0) -> None:
        self.elapsed = elapsed

    def __call__(self) -> float:
        return self.elapsed


def account(budget: str, watch: Stopwatch | None = None, *, length: int = 10, **changes: Any) -> BudgetAccount:
    options = {"spent": 0, "full_trials": (), **changes}
    return BudgetAccount(Budget.parse(budget), length, elapsed=watch or Stopwatch(), **options)


class TestEpochs:
    @pytest.mark.parametrize(("spent", "starts"), [(0, True), (10, True), (11, False), (20, False)])
    def test_a_trial_starts_only_if_the_budget_suffices_for_its_full_length(self, spent: int, starts: bool) -> None:
        assert account("2", Stopwatch(1e9), spent=spent).can_start(10) == starts

    def test_reserved_epochs_are_not_available_to_other_trials(self) -> None:
        tested = account("2", spent=5)
        assert tested.can_start(10)
        tested.reserve("a", 10)
        assert not tested.can_start(10)
        assert tested.can_start(5)
        tested.release("a")
        assert tested.can_start(10)

    def test_a_trial_reserves_only_what_the_budget_leaves(self) -> None:
        tested = account("1", spent=7)
        tested.reserve("a", 3)
        tested.count_epoch("a", remaining=8)
        assert (tested.spent, tested.stop_reason("a")) == (8, None)
        tested.count_epoch("a", remaining=7)
        tested.count_epoch("a", remaining=6)
        assert (tested.spent, tested.stop_reason("a")) == (10, OUT_OF_EPOCHS)

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
        tested, rng = account(str(trials), length=length), random.Random(seed)
        running: dict[str, int] = {}
        names = iter(range(10**6))
        while True:
            while len(running) < workers and tested.can_start(length):
                key = str(next(names))
                tested.reserve(key, length)
                running[key] = length
            if not running:
                break
            key = rng.choice(sorted(running))
            running[key] -= 1
            tested.count_epoch(key, remaining=running[key])
            assert tested.spent + sum(running.values()) <= trials * length
            if running[key] == 0 or rng.random() < stop:
                running.pop(key)
                tested.release(key)
        assert trials * length - length < tested.spent <= trials * length


class TestTime:
    def test_trials_start_and_run_until_the_time_is_used_up(self) -> None:
        watch = Stopwatch(59.9)
        tested = account("1m", watch, spent=10**6)
        tested.reserve("a", 10)
        assert tested.can_start(10)
        assert tested.stop_reason("a") is None
        watch.elapsed = 60.0
        assert not tested.can_start(10)
        assert tested.stop_reason("a") == OUT_OF_TIME

    def test_a_trial_starts_only_if_there_is_time_for_the_median_trial(self) -> None:
        tested = account("100s", Stopwatch(70.0))
        tested.note_trial(35.0)
        assert not tested.can_start(10)
        tested.note_trial(20.0)
        assert tested.can_start(10)
        tested.note_trial(40.0)
        assert not tested.can_start(10)

    def test_time_for_everything_after_the_trials_is_kept_back(self) -> None:
        """With 2 s per epoch of the trials, 30 + 10 epochs leave 200 - 80 = 120 s."""
        watch = Stopwatch(100.0)
        tested = account("200s", watch, spent=30, full_trials=[20.0], closing_seconds=lambda epochs: 2.0 * epochs)
        assert tested.can_start(10)
        watch.elapsed = 101.0
        assert not tested.can_start(10), "it would end at 121 s"

    def test_a_trial_that_cannot_end_in_time_is_stopped(self) -> None:
        watch = Stopwatch(100.0)
        tested = account("200s", watch, closing_seconds=lambda epochs: 50.0)
        tested.reserve("a", 10)
        tested.count_epoch("a", remaining=6, seconds=10.0)
        assert tested.stop_reason("a") is None, "60 s: until 150 s, and 5 % of the budget more"
        tested.count_epoch("a", remaining=6, seconds=10.1)
        assert tested.stop_reason("a") == OUT_OF_TIME
        tested.count_epoch("a", remaining=5, seconds=10.1)
        assert tested.stop_reason("a") is None
