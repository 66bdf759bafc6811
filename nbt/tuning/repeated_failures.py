"""Equal failures in a row, which end a search or a recording: another attempt would fail in the same way."""

from __future__ import annotations

import re

MAX_EQUAL_FAILURES = 3

_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)?")


def failure_kind(error: str) -> str:
    """Returns the message of a failure without its numbers."""
    return _NUMBERS.sub("#", error)


class RepeatedFailures:
    """Counts failures in a row whose messages are equal but for numbers, such as sizes, addresses and trial numbers."""

    def __init__(self) -> None:
        self._kind, self._count = "", 0

    def add(self, error: str) -> bool:
        """Counts a failure.

        Args:
            error: Message of the failure.

        Returns:
            Whether `MAX_EQUAL_FAILURES` failures in a row were equal.
        """
        kind = failure_kind(error)
        self._count = self._count + 1 if kind == self._kind else 1
        self._kind = kind
        return self._count >= MAX_EQUAL_FAILURES

    def reset(self) -> None:
        """Starts again, after a success."""
        self._kind, self._count = "", 0
