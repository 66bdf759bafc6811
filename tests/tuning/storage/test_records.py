"""What a study's record derives from its trials."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nbt.tuning.storage.records import TrialRecord
from tests.sample_study import EPOCHS, curve, interrupted, sample_study, trial

WHOLE = trial(0, curve=curve(0.5))
CONTINUATION = trial(2, curve=curve(0.5), trained=EPOCHS - 3, continues=1)


@pytest.mark.parametrize(
    ("trials", "spent"),
    [
        ((WHOLE, trial(1, curve=curve(0.5))), True),
        ((WHOLE,), False),
        ((WHOLE, interrupted(1), CONTINUATION), True),
        ((WHOLE, interrupted(1), trial(2, curve=curve(0.5))), False),
        ((WHOLE, interrupted(1), trial(2, "running", curve=curve(0.5), trained=EPOCHS - 3, continues=1)), False),
    ],
    ids=["whole trials", "a trial left", "continued", "interrupted and not continued", "still running"],
)
def test_a_budget_is_spent_if_nothing_is_left_and_no_trial_waits(trials: tuple[TrialRecord, ...], spent: bool) -> None:
    record = sample_study(trials=trials, epochs_budget=2 * EPOCHS, epochs_spent=sum(t.epochs_spent for t in trials))
    assert record.has_spent_budget is spent
    assert record.has_ended is spent
    assert not replace(record, recommended=None).has_ended
