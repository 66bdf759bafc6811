"""Handling of SIGINT and SIGTERM such that no update of the supervisor's state is interrupted half-way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptGuard:
    """Context manager in which SIGINT and SIGTERM raise KeyboardInterrupt; inside `deferred`, only when it ends.

    A second signal inside the same `deferred` raises at once, so that a blocked program can always be interrupted.
    Signal handlers set by other code are kept. Outside the main thread, which alone receives signals, the guard has
    no effect.
    """

    def __init__(self) -> None:
        self._previous: dict[signal.Signals, Any] = {}
        self._depth = 0
        self._pending = False

    def __enter__(self) -> InterruptGuard:
        if threading.current_thread() is threading.main_thread():
            for signum in _SIGNALS:
                if signal.getsignal(signum) in (signal.default_int_handler, signal.SIG_DFL):
                    self._previous[signum] = signal.signal(signum, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Returns a context that defers the first interrupt inside its body to the end of the body."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._pending and not self._depth:
                self._pending = False
                raise KeyboardInterrupt

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._depth and not self._pending:
            self._pending = True
            return
        self._pending = False
        raise KeyboardInterrupt
