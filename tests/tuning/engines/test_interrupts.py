"""The guard that defers interrupts and loses none."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable

import pytest

from nbt.tuning.engines.interrupts import InterruptGuard
from tests.tuning.engines.processes import TIMEOUT_SECONDS


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


class InterruptsInFinaliser:
    """Receives a signal in its finaliser, from which Python drops every exception."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def drop_interrupt() -> None:
    InterruptsInFinaliser()


def swallow_interrupt() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_that_python_drops_is_raised_again() -> None:
    hook = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), InterruptGuard():
        drop_interrupt()
        threading.Event().wait(TIMEOUT_SECONDS)
        pytest.fail("the interrupt was lost")
    assert sys.unraisablehook is hook


def test_a_dropped_interrupt_is_raised_again_only_once() -> None:
    cleaned_up = False
    with pytest.raises(KeyboardInterrupt), InterruptGuard() as guard:
        drop_interrupt()
        try:
            with guard.deferred():
                pytest.fail("the interrupt was lost")
        finally:
            threading.Event().wait(0.2)
            cleaned_up = True
    assert cleaned_up


@pytest.mark.parametrize("lose_interrupt", [drop_interrupt, swallow_interrupt])
def test_a_lost_interrupt_is_raised_at_the_next_call_to_the_source(lose_interrupt: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt), InterruptGuard() as guard:
        lose_interrupt()
        with guard.deferred():
            pytest.fail("the interrupt was lost")


def test_a_lost_interrupt_is_raised_when_an_inner_guard_is_entered() -> None:
    with pytest.raises(KeyboardInterrupt), InterruptGuard():
        swallow_interrupt()
        with InterruptGuard():
            pytest.fail("the interrupt was lost")


def test_a_lost_interrupt_is_raised_at_the_end() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), InterruptGuard():
        swallow_interrupt()
        reached = True
    assert reached
    with InterruptGuard():
        pass


def test_an_interrupt_that_leaves_an_inner_guard_is_not_raised_twice() -> None:
    with InterruptGuard():
        with pytest.raises(KeyboardInterrupt), InterruptGuard():
            signal.raise_signal(signal.SIGINT)
        with InterruptGuard() as inner, inner.deferred():
            pass


def test_other_dropped_exceptions_are_reported_as_before() -> None:
    class Fails:
        def __del__(self) -> None:
            raise ValueError("odd")

    reported: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda unraisable: reported.append(unraisable.exc_type)
    try:
        with InterruptGuard():
            Fails()
    finally:
        sys.unraisablehook = before
    assert reported == [ValueError]
