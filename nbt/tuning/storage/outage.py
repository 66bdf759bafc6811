"""Outages of a database on a server: operations are repeated while it restarts or its network fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy

from nbt.errors import NbtError
from nbt.tuning.storage.database import convert_errors, sqlite_file

_log = logging.getLogger("nbt")

OUTAGE_SECONDS = 60.0
"""Longest outage in seconds that a search waits for. It is shorter than the validity of a lease
(`nbt.tuning.storage.locks.LEASE_EXPIRY_SECONDS`), so that no other driver takes the study meanwhile."""
_RETRY_SECONDS = 1.0

T = TypeVar("T")


class OutageRetry:
    """Repeats operations on a database on a server; operations on an SQLite file are not repeated.

    Args:
        url: URL of the database.
    """

    def __init__(self, url: str) -> None:
        self._url, self._is_server = url, sqlite_file(url) is None
        self._is_out = False
        self._lock = threading.Lock()

    def run(self, operation: Callable[[], T]) -> T:
        """Returns the result of an operation, which is repeated while the server cannot be reached.

        An operation may have been carried out although its connection was lost, so it must tolerate being repeated.

        Args:
            operation: The operation.

        Raises:
            UsageError: The file is damaged or not a database.
            NbtError: The operation fails for another reason, or the server could not be reached for `OUTAGE_SECONDS`.
        """
        deadline = time.monotonic() + OUTAGE_SECONDS
        while True:
            try:
                with convert_errors(self._url):
                    result = operation()
                self._note(None)
                return result
            except NbtError as error:
                if not (self._is_server and _is_outage(error)) or time.monotonic() > deadline:
                    raise
                self._note(error)
            time.sleep(_RETRY_SECONDS)

    def _note(self, error: NbtError | None) -> None:
        """Logs the beginning and the end of an outage once, also if several threads notice them."""
        with self._lock:
            if self._is_out == (error is not None):
                return
            self._is_out = error is not None
        if error is None:
            _log.warning("the database can be reached again; nothing was lost")
        else:
            _log.warning("%s; waiting up to %.0f s for the database", error, OUTAGE_SECONDS)


def _is_outage(error: BaseException) -> bool:
    """Returns whether an error comes from a connection that was lost or could not be made."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError):
            return True
        if isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.connection_invalidated:
            return True
        cause = cause.__cause__
    return False
