"""Rate limit of checkpoints: the total of all workers is bounded, and every worker sends some."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.tuning.engines.ray.worker.checkpoint_rate_limiter import CheckpointRateLimiter


def test_sends_the_first_at_once_and_the_next_after_its_interval() -> None:
    rate_limiter = CheckpointRateLimiter(10.0)
    assert rate_limiter.try_acquire(50, now=100.0)
    assert not rate_limiter.try_acquire(50, now=104.9)
    assert rate_limiter.try_acquire(20, now=105.0), "the interval follows from the size that was sent"
    assert not rate_limiter.try_acquire(20, now=106.9)
    assert rate_limiter.try_acquire(20, now=107.0)


def test_the_phase_delays_the_first_checkpoint() -> None:
    rate_limiter = CheckpointRateLimiter(10.0, phase=0.5)
    assert not rate_limiter.try_acquire(50, now=0.0)
    assert not rate_limiter.try_acquire(50, now=2.4)
    assert rate_limiter.try_acquire(50, now=2.5)


def test_with_an_infinite_rate_everything_is_sent() -> None:
    rate_limiter = CheckpointRateLimiter(float("inf"), phase=0.9)
    assert all(rate_limiter.try_acquire(10**9, now=0.0) for _ in range(3))


@given(
    workers=st.integers(1, 40),
    sizes=st.lists(st.integers(1, 500), min_size=1, max_size=5),
    period=st.floats(0.1, 30.0),
)
def test_all_workers_together_stay_below_the_limit(workers: int, sizes: list[int], period: float) -> None:
    limit, seconds = 100.0, 600.0
    limiters = [CheckpointRateLimiter(limit / workers, phase=slot / workers) for slot in range(workers)]
    sent = []
    for step in range(int(seconds / period) + 1):
        for slot, rate_limiter in enumerate(limiters):
            size = sizes[slot % len(sizes)]
            if rate_limiter.try_acquire(size, now=step * period):
                sent.append((slot, size))
    # The first checkpoint of each worker is sent before its interval has passed.
    first = sum(sizes[slot % len(sizes)] for slot in range(workers))
    assert sum(size for _, size in sent) <= limit * seconds * 1.001 + first + limit * period
    if seconds > 2 * workers * (max(sizes) / limit) + 2 * period:
        assert {slot for slot, _ in sent} == set(range(workers))


@pytest.mark.parametrize("phase", [0.0, 0.99])
def test_a_later_larger_checkpoint_is_sent(phase: float) -> None:
    rate_limiter = CheckpointRateLimiter(1.0, phase)
    rate_limiter.try_acquire(10, now=0.0)
    assert rate_limiter.try_acquire(10_000, now=10.0)
