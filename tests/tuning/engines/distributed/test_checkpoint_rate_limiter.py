"""Checkpoints of many workers: what they send together is bounded, and nobody is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.tuning.engines.distributed.checkpoint_rate_limiter import CheckpointRateLimiter


def test_sends_the_first_at_once_and_the_next_when_there_was_time_for_it() -> None:
    rate_limiter = CheckpointRateLimiter(10.0)
    assert rate_limiter.try_acquire(50, now=100.0)
    assert not rate_limiter.try_acquire(50, now=104.9)
    assert rate_limiter.try_acquire(20, now=105.0), "the wait is for what was sent"
    assert not rate_limiter.try_acquire(20, now=106.9)
    assert rate_limiter.try_acquire(20, now=107.0)


def test_a_later_phase_waits_for_its_share_of_the_first_turn() -> None:
    rate_limiter = CheckpointRateLimiter(10.0, phase=0.5)
    assert not rate_limiter.try_acquire(50, now=0.0)
    assert not rate_limiter.try_acquire(50, now=2.4)
    assert rate_limiter.try_acquire(50, now=2.5)


def test_without_a_bound_everything_is_sent() -> None:
    rate_limiter = CheckpointRateLimiter(float("inf"), phase=0.9)
    assert all(rate_limiter.try_acquire(10**9, now=0.0) for _ in range(3))


@given(
    workers=st.integers(1, 40),
    sizes=st.lists(st.integers(1, 500), min_size=1, max_size=5),
    every=st.floats(0.1, 30.0),
)
def test_all_together_send_no_more_than_the_bound(workers: int, sizes: list[int], every: float) -> None:
    bound, seconds = 100.0, 600.0
    paces = [CheckpointRateLimiter(bound / workers, phase=slot / workers) for slot in range(workers)]
    sent = []
    for step in range(int(seconds / every) + 1):
        for slot, rate_limiter in enumerate(paces):
            size = sizes[slot % len(sizes)]
            if rate_limiter.try_acquire(size, now=step * every):
                sent.append((slot, size))
    # The first of each comes before there was time for it.
    first = sum(sizes[slot % len(sizes)] for slot in range(workers))
    assert sum(size for _, size in sent) <= bound * seconds * 1.001 + first + bound * every
    if seconds > 2 * workers * (max(sizes) / bound) + 2 * every:
        assert {slot for slot, _ in sent} == set(range(workers))


@pytest.mark.parametrize("phase", [0.0, 0.99])
def test_a_larger_checkpoint_later_is_sent_too(phase: float) -> None:
    rate_limiter = CheckpointRateLimiter(1.0, phase)
    rate_limiter.try_acquire(10, now=0.0)
    assert rate_limiter.try_acquire(10_000, now=10.0)
