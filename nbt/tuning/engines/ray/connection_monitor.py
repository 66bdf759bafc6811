"""Detection of an unreachable server, before Ray ends the whole process because its head is gone."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_PERIOD_SECONDS = 1.0
_CONNECT_TIMEOUT_SECONDS = 5.0
# These errors have a cause in this process, not in the server.
_LOCAL_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)


@dataclass(frozen=True)
class Endpoint:
    """Address of a server.

    Attributes:
        name: Display name of the server.
        host: Host name or IP address.
        port: TCP port.
        timeout_seconds: Seconds without a response after which the server counts as lost.
    """

    name: str
    host: str
    port: int
    timeout_seconds: float

    def is_reachable(self, seconds: float = _CONNECT_TIMEOUT_SECONDS) -> bool:
        """Returns whether the server accepts a connection within `seconds`; also True on an error of this process."""
        try:
            with socket.create_connection((self.host, self.port), timeout=seconds):
                return True
        except OSError as error:
            return error.errno in _LOCAL_ERRORS


class ConnectionMonitor:
    """A thread that regularly connects to servers to check that they are reachable.

    Args:
        endpoints: The servers to check.
        on_lost: Called once, with a message for the user, when a server has not responded for its `timeout_seconds`.
        period: Seconds between two checks.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], on_lost: Callable[[str], None], period: float = _PERIOD_SECONDS
    ) -> None:
        self._endpoints, self._on_lost, self._period = endpoints, on_lost, period
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="nbt-health-monitor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops checking; may be called twice."""
        self._end.set()

    def _poll(self) -> None:
        unreachable_since: dict[Endpoint, float] = {}
        while not self._end.wait(self._period):
            for endpoint in self._endpoints:
                began = time.monotonic()
                if endpoint.is_reachable():
                    unreachable_since.pop(endpoint, None)
                elif time.monotonic() - unreachable_since.setdefault(endpoint, began) >= endpoint.timeout_seconds:
                    self._on_lost(f"{endpoint.name} at {endpoint.host}:{endpoint.port} no longer responds")
                    return
