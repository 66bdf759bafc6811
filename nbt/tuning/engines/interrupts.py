"""Handling of SIGINT and SIGTERM: no update of state is interrupted half-way, and no interrupt is lost."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any

_REPEAT_SECONDS = 0.05


class InterruptGuard:
    """Context manager in which SIGINT and SIGTERM raise KeyboardInterrupt; inside `deferred`, only when it ends.

    A second signal inside the same `deferred` raises at once, so that a blocked program can always be interrupted.

    Python drops an exception that a signal handler raises inside a finaliser or a callback of the garbage collector,
    and other code may swallow it. An interrupt therefore stays pending until KeyboardInterrupt leaves the guard: one
    that was dropped is raised again shortly after; one that was swallowed is raised when `deferred` or a guard inside
    this one is entered, and at the latest when this guard is left.

    Guards may be nested. Signal handlers set by other code are kept. Outside the main thread, which alone receives
    signals, the guard has no effect.

    Args:
        signals: The signals to handle.
    """

    def __init__(self, signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)) -> None:
        self._signals = signals
        self._previous: dict[signal.Signals, Any] = {}
        self._previous_hook = sys.unraisablehook
        self._depth = 0
        self._pending = self._dropped = False
        self._deferral = _Deferral(self)

    def __enter__(self) -> InterruptGuard:
        if threading.current_thread() is not threading.main_thread():
            return self
        for signum in self._signals:
            handler = signal.getsignal(signum)
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, InterruptGuard):
                outer.raise_pending()
            if isinstance(outer, InterruptGuard) or handler in (signal.default_int_handler, signal.SIG_DFL):
                self._previous[signum] = signal.signal(signum, self._on_signal)
        self._previous_hook, sys.unraisablehook = sys.unraisablehook, self._on_dropped_exception
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()
        if sys.unraisablehook == self._on_dropped_exception:
            sys.unraisablehook = self._previous_hook
        pending, self._pending = self._pending, False
        if pending and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt

    def deferred(self) -> _Deferral:
        """Returns a context that defers the first interrupt inside its body to the end of the body."""
        return self._deferral

    def raise_pending(self) -> None:
        """Raises KeyboardInterrupt if an interrupt is pending and no `deferred` is active."""
        if self._pending and not self._depth:
            self._dropped = False
            raise KeyboardInterrupt

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        wait = self._depth and not self._pending
        self._pending, self._dropped = True, False
        if not wait:
            raise KeyboardInterrupt

    def _on_dropped_exception(self, unraisable: Any) -> None:
        """Repeats the signal of a KeyboardInterrupt that Python drops; this hook itself cannot raise it."""
        if self._pending and issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._dropped = True
            _thread.start_new_thread(self._repeat_signal, ())
        else:
            self._previous_hook(unraisable)

    def _repeat_signal(self) -> None:
        time.sleep(_REPEAT_SECONDS)
        main_thread = threading.main_thread().ident
        if self._dropped and self._previous and main_thread is not None:
            signal.pthread_kill(main_thread, next(iter(self._previous)))  # also wakes it from a wait


class _Deferral:
    """The context of `InterruptGuard.deferred`, which may be nested."""

    def __init__(self, guard: InterruptGuard) -> None:
        self._guard = guard

    def __enter__(self) -> None:
        self._guard.raise_pending()
        self._guard._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._guard._depth -= 1
        self._guard.raise_pending()
