"""TrackingConnection: a server that may be away, asked no more often than it is worth."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from nbt.uris import redact_uri

_log = logging.getLogger("nbt")

RETRY_SECONDS = 60.0
"""Pause after a server did not answer; longer where not answering took long, so that it costs a twentieth at most."""


def error_summary(error: BaseException) -> str:
    """Returns one line on an error: what the network or disk said where that is the cause, else the error itself."""
    cause, chain = error, [error]
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
        chain.append(cause)
    told = next((one for one in reversed(chain) if isinstance(one, OSError)), error)
    text = redact_uri(" ".join(str(told).split()))[:200]
    return f"{type(told).__name__}: {text}" if text else type(told).__name__


class TrackingConnection:
    """Who asks a store again that did not answer: seldom, and with one warning.

    Args:
        uri: Resolved.
        retry_seconds: The least time between two attempts.
        clock: Seconds; for tests.
    """

    def __init__(
        self, uri: str, *, retry_seconds: float = RETRY_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.uri = uri
        self._retry_seconds, self._clock = retry_seconds, clock
        self._down = False
        self._next_attempt = -math.inf

    @property
    def due(self) -> bool:
        """Whether it is time to ask again."""
        return self._clock() >= self._next_attempt

    def retry_now(self) -> None:
        """Makes it due now."""
        self._next_attempt = -math.inf

    def attempt(self, write: Callable[[], None], consequence: str) -> bool:
        """Writes, whatever comes of it.

        Args:
            write: May raise anything.
            consequence: What a warning says of it: "the search goes on, ...".

        Returns:
            Whether it was written.
        """
        began = self._clock()
        try:
            write()
        except Exception as error:  # a tracking server must not cost a training
            self._next_attempt = self._clock() + max(self._retry_seconds, 20 * (self._clock() - began))
            if not self._down:
                self._down = True
                _log.warning(
                    "MLflow at %s cannot be written (%s); %s", redact_uri(self.uri), error_summary(error), consequence
                )
            _log.debug("MLflow", exc_info=error)
            return False
        if self._down:
            self._down = False
            _log.info("MLflow at %s answers again; what it missed is written", redact_uri(self.uri))
        return True
