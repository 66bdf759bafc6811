"""Forwarding of a worker's log records, which the driver displays."""

from __future__ import annotations

import logging
from collections.abc import Callable


class _ForwardingHandler(logging.Handler):
    def __init__(self, forward: Callable[[int, str], None]) -> None:
        super().__init__()
        self._forward = forward

    def emit(self, record: logging.LogRecord) -> None:
        self._forward(record.levelno, record.getMessage())


def forward_logs(level: int, forward: Callable[[int, str], None]) -> None:
    """Forwards the records of the logger "nbt" of this process instead of printing them.

    Args:
        level: Minimum level of the records.
        forward: Called with the level and the text of each record, in any thread.
    """
    log = logging.getLogger("nbt")
    log.handlers = [_ForwardingHandler(forward)]
    log.setLevel(level)
    log.propagate = False
