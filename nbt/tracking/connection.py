"""Connection to a tracking store that may be unreachable, with a limited rate of attempts."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from nbt.uris import redact_uri

_log = logging.getLogger("nbt")

RETRY_SECONDS = 60.0
"""Pause in seconds after a failed attempt; at least 20 times as long as the attempt took."""


def error_summary(error: BaseException) -> str:
    """Returns one line on an error, without passwords: the OS or network error behind it, else the error itself."""
    cause, chain = error, [error]
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
        chain.append(cause)
    root = next((link for link in reversed(chain) if isinstance(link, OSError)), error)
    text = redact_uri(" ".join(str(root).split()))[:200]
    return f"{type(root).__name__}: {text}" if text else type(root).__name__


class TrackingConnection:
    """Limits attempts to write to a store that failed, and warns once per outage.

    Args:
        uri: Resolved tracking URI.
        retry_seconds: Minimum time in seconds between two attempts.
        clock: Monotonic clock in seconds; replaceable for tests.
    """

    def __init__(
        self, uri: str, *, retry_seconds: float = RETRY_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.uri = uri
        self._retry_seconds, self._clock = retry_seconds, clock
        self._down = False
        self._next_attempt = -math.inf

    @property
    def retry_due(self) -> bool:
        """Whether the pause after the last failure is over."""
        return self._clock() >= self._next_attempt

    def retry_now(self) -> None:
        """Ends the pause."""
        self._next_attempt = -math.inf

    def attempt(self, write: Callable[[], None], consequence: str) -> bool:
        """Calls `write` and logs its errors instead of raising them.

        Args:
            write: The write; may raise any exception.
            consequence: Text on the consequence of a failure, for the warning.

        Returns:
            Whether the write succeeded.
        """
        started = self._clock()
        try:
            write()
        except Exception as error:  # a failure of tracking must not stop training
            self._next_attempt = self._clock() + max(self._retry_seconds, 20 * (self._clock() - started))
            if not self._down:
                self._down = True
                _log.warning(
                    "MLflow at %s cannot be written (%s); %s", redact_uri(self.uri), error_summary(error), consequence
                )
            _log.debug("MLflow", exc_info=error)
            return False
        if self._down:
            self._down = False
            _log.info("MLflow at %s is reachable again; missing runs have been written", redact_uri(self.uri))
        return True
