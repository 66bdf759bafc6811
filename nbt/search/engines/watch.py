"""Watch: notices in time that a server is gone. It knows no Ray, which ends the whole process when its head is gone."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_PERIOD_SECONDS = 1.0
_ANSWER_SECONDS = 5.0
# These say something of this process and nothing of the server.
_OUR_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)


@dataclass(frozen=True)
class Door:
    """Where a server listens.

    Attributes:
        name: Of the server, for people.
        host: Name or address.
        port: Of TCP.
        patience: Seconds without an answer after which it is gone.
    """

    name: str
    host: str
    port: int
    patience: float

    def answers(self, seconds: float = _ANSWER_SECONDS) -> bool:
        """Tells whether it takes a connection within so many seconds."""
        try:
            with socket.create_connection((self.host, self.port), timeout=seconds):
                return True
        except OSError as error:
            return error.errno in _OUR_OWN


class Watch:
    """A thread that knocks at doors.

    Args:
        doors: Where.
        on_lost: Called once, with what to tell people, when one of them has been silent for its patience.
        period: Seconds between two rounds.
    """

    def __init__(self, doors: Sequence[Door], on_lost: Callable[[str], None], period: float = _PERIOD_SECONDS) -> None:
        self._doors, self._on_lost, self._period = doors, on_lost, period
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._knock, name="nbt-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the watch; may be called twice."""
        self._end.set()

    def _knock(self) -> None:
        silent_since: dict[Door, float] = {}
        while not self._end.wait(self._period):
            for door in self._doors:
                began = time.monotonic()
                if door.answers():
                    silent_since.pop(door, None)
                elif time.monotonic() - silent_since.setdefault(door, began) >= door.patience:
                    self._on_lost(f"{door.name} at {door.host}:{door.port} does not answer any more")
                    return
