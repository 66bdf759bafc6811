"""HealthMonitor: notices in time that a server is gone. It knows no Ray, which ends the whole process when its head is gone."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_PERIOD_SECONDS = 1.0
_CONNECT_TIMEOUT_SECONDS = 5.0
# These say something of this process and nothing of the server.
_LOCAL_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens.

    Attributes:
        name: Of the server, for people.
        host: Name or address.
        port: Of TCP.
        timeout_seconds: Seconds without an answer after which it is gone.
    """

    name: str
    host: str
    port: int
    timeout_seconds: float

    def is_reachable(self, seconds: float = _CONNECT_TIMEOUT_SECONDS) -> bool:
        """Tells whether it takes a connection within so many seconds."""
        try:
            with socket.create_connection((self.host, self.port), timeout=seconds):
                return True
        except OSError as error:
            return error.errno in _LOCAL_ERRORS


class HealthMonitor:
    """A thread that knocks at endpoints.

    Args:
        endpoints: Where.
        on_lost: Called once, with what to tell people, when one of them has been silent for its timeout_seconds.
        period: Seconds between two rounds.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], on_lost: Callable[[str], None], period: float = _PERIOD_SECONDS
    ) -> None:
        self._endpoints, self._on_lost, self._period = endpoints, on_lost, period
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="nbt-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the watch; may be called twice."""
        self._end.set()

    def _poll(self) -> None:
        unreachable_since: dict[Endpoint, float] = {}
        while not self._end.wait(self._period):
            for endpoint in self._endpoints:
                began = time.monotonic()
                if endpoint.is_reachable():
                    unreachable_since.pop(endpoint, None)
                elif time.monotonic() - unreachable_since.setdefault(endpoint, began) >= endpoint.timeout_seconds:
                    self._on_lost(f"{endpoint.name} at {endpoint.host}:{endpoint.port} does not answer any more")
                    return
