from __future__ import annotations

from typing import Any

from nbt.tuning.budget import OUT_OF_EPOCHS, OUT_OF_TIME, Budget
from nbt.tuning.budget_account import BudgetAccount
from tests.tuning.fakes import FakeClock


def account(budget: str, clock: FakeClock | None = None, **changes: Any) -> BudgetAccount:
    options = {"spent_epochs": 0, "spent_seconds": 0.0, "full_trial_seconds": 0.0, **changes}
    return BudgetAccount(Budget.parse(budget), 10, clock=clock or FakeClock(), **options)


def test_reserved_epochs_are_not_available_to_other_trials() -> None:
    tested = account("2", spent_epochs=5)
    assert tested.can_start(10)
    tested.reserve("a", 10)
    assert not tested.can_start(10)
    assert tested.can_start(5)
    tested.release("a")
    assert tested.can_start(10)


def test_a_trial_reserves_only_what_the_budget_leaves() -> None:
    tested = account("1", spent_epochs=7)
    tested.reserve("a", 3)
    tested.count_epoch("a", remaining=8)
    assert (tested.spent_epochs, tested.stop_reason("a")) == (8, None)
    tested.count_epoch("a", remaining=7)
    tested.count_epoch("a", remaining=6)
    assert (tested.spent_epochs, tested.stop_reason("a")) == (10, OUT_OF_EPOCHS)


def test_time_includes_earlier_sessions_and_needs_the_fastest_full_trial() -> None:
    clock = FakeClock()
    tested = account("100s", clock, spent_seconds=40.0)
    clock.now += 30
    assert tested.seconds == 70
    tested.note_full_trial(35.0)
    assert not tested.can_start(10)
    tested.note_full_trial(25.0)
    assert tested.can_start(10)
    tested.note_full_trial(40.0)
    assert tested.can_start(10), "the fastest one counts"
    tested.reserve("a", 10)
    tested.count_epoch("a", remaining=9)
    assert tested.stop_reason("a") is None
    clock.now += 30
    assert tested.stop_reason("a") == OUT_OF_TIME
