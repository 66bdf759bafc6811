"""The guard that defers interrupts."""

from __future__ import annotations

import signal
import threading

import pytest

from nbt.tuning.engines.interrupts import InterruptGuard


def test_a_deferred_interrupt_is_raised_at_the_end() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), InterruptGuard() as guard, guard.deferred():
        signal.raise_signal(signal.SIGINT)
        reached = True
    assert reached


def test_the_second_interrupt_is_raised_at_once() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), InterruptGuard() as guard, guard.deferred():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        reached = True
    assert not reached


def test_other_handlers_are_kept() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with InterruptGuard():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]


def test_other_threads_are_unaffected() -> None:
    def enter() -> None:
        with InterruptGuard() as guard, guard.deferred():
            entered.append(True)

    entered: list[bool] = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered
