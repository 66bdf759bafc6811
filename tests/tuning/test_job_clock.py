from __future__ import annotations

from nbt.tuning.job_clock import FINALS, PHASES, PREPARE, PROFILE, TRIALS, JobClock, JobEstimate
from tests.tuning.fakes import FakeClock


def test_each_phase_is_measured() -> None:
    time = FakeClock()
    clock = JobClock(time)
    time.now += 3.0
    clock.enter(PROFILE)
    time.now += 4.0
    clock.enter(TRIALS)
    time.now += 5.0
    assert clock.seconds() == {**dict.fromkeys(PHASES, 0.0), PREPARE: 3.0, PROFILE: 4.0, TRIALS: 5.0}
    assert clock.total == 12.0


def test_sessions_add_up() -> None:
    time = FakeClock()
    clock = JobClock(time)
    time.now += 2.0
    clock.add({PREPARE: 3.0, FINALS: 7.0, "estimate": 99.0})
    clock.enter(FINALS)
    time.now += 1.0
    assert clock.seconds() == {**dict.fromkeys(PHASES, 0.0), PREPARE: 5.0, FINALS: 8.0}


def test_the_time_left_is_never_negative() -> None:
    assert JobEstimate({TRIALS: 10.0, FINALS: 5.0}, 11.0).left == 4.0
    assert JobEstimate({TRIALS: 10.0, FINALS: 5.0}, 16.0).left == 0.0
