"""Locks that give each study a single driver; a second driver gets an error that names the holder."""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import filelock

from nbt.errors import NbtError
from nbt.files import process_exists

_log = logging.getLogger("nbt")

HEARTBEAT_SECONDS = 15.0
LEASE_EXPIRY_SECONDS = 90.0
_POLL_SECONDS = 1.0


class StudyLock(Protocol):
    """A lock that the driver of a study holds until `release` or the end of the process."""

    def check(self) -> None:
        """Raises NbtError if another driver has taken the lock."""
        ...

    def release(self) -> None:
        """Releases the lock; may be called twice."""
        ...


class FileLock:
    """A lock of the operating system on a file, for SQLite databases; it ends with the process.

    The file names the holder. It is not removed: otherwise two drivers could lock two different files of the same name.
    """

    def __init__(self, path: Path, study: str) -> None:
        """Acquires the lock.

        Args:
            path: The lock file; it is created if it is missing.
            study: Name of the study, for messages.

        Raises:
            NbtError: Another driver holds the lock, or the file cannot be written.
        """
        self._lock = filelock.FileLock(path, timeout=0, thread_local=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            path.write_text(json.dumps(_holder_info()), encoding="utf-8")
        except filelock.Timeout as error:
            raise _in_use_error(study, _parse_holder(path)) from error
        except OSError as error:
            self._lock.release()
            raise NbtError(f"{path}: cannot lock study {study} ({error.strerror})") from error

    def check(self) -> None:
        """Does nothing: a lock of the operating system cannot be taken away."""

    def release(self) -> None:
        """Releases the lock; may be called twice."""
        self._lock.release()


def locked_file_message(path: Path, study: str) -> str | None:
    """Returns who searches a study according to its lock file; None if nobody does."""
    if not path.exists():
        return None
    lock = filelock.FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        return _in_use_message(study, _parse_holder(path))
    except OSError:  # a file that cannot be locked here, such as one of another user, has no driver here
        return None
    lock.release()
    return None


def lease_message(holder: Mapping[str, Any] | None, study: str) -> str | None:
    """Returns who searches a study according to its lease; None if nobody does."""
    return _in_use_message(study, holder or {}) if _is_active(holder, datetime.now(UTC).timestamp()) else None


class LeaseLock:
    """A lock for databases on a server: a lease in an attribute of the study, renewed by heartbeats.

    The lease expires `LEASE_EXPIRY_SECONDS` after the last heartbeat, so the clocks of the drivers' machines must agree
    to about a minute. It expires at once if its holder was a process of this machine that has ended. A driver that
    finds the lease taken waits for the holder's next heartbeat, because a driver that was killed on another machine
    leaves its lease behind.
    """

    def __init__(
        self,
        study: str,
        read: Callable[[], Mapping[str, Any] | None],
        write: Callable[[Mapping[str, Any] | None], None],
        *,
        now: Callable[[], float] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        heartbeat_seconds: float | None = HEARTBEAT_SECONDS,
    ) -> None:
        """Acquires the lease; waits for its expiry while the holder sends no heartbeat.

        Args:
            study: Name of the study.
            read: Returns the value of the attribute.
            write: Sets the value of the attribute.
            now: Returns the seconds since 1970; the system clock by default.
            sleep: Waits for a number of seconds.
            heartbeat_seconds: Interval between heartbeats, sent by a background thread; None starts no thread.

        Raises:
            NbtError: Another driver holds the lease.
        """
        self._study, self._read, self._write = study, read, write
        self._now = now or (lambda: datetime.now(UTC).timestamp())
        self._holder_info = {**_holder_info(), "owner": uuid.uuid4().hex}
        self._lost_error: NbtError | None = None
        self._stop = threading.Event()
        self._wait_until_free(sleep)
        self._renew()
        self.heartbeat()
        self.check()
        self._thread = None
        if heartbeat_seconds is not None:
            self._thread = threading.Thread(
                target=self._heartbeat_loop, args=(heartbeat_seconds,), name="nbt-lease", daemon=True
            )
            self._thread.start()

    def heartbeat(self) -> None:
        """Renews the lease unless another driver has taken it.

        If two drivers acquire the lease at the same time, one of them loses it here.
        """
        holder = self._read() or {}
        if holder.get("owner") not in (self._holder_info["owner"], None):
            self._lost_error = _in_use_error(self._study, holder)
        elif self._lost_error is None:
            self._renew()

    def check(self) -> None:
        """Raises NbtError if another driver has taken the lease."""
        if self._lost_error is not None:
            raise self._lost_error

    def release(self) -> None:
        """Releases the lease unless another driver has taken it; may be called twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._lost_error is None and (self._read() or {}).get("owner") == self._holder_info["owner"]:
            self._write(None)

    def _wait_until_free(self, sleep: Callable[[float], None]) -> None:
        """Waits until the lease is free or expired; raises NbtError if its holder is alive."""
        first = holder = self._read()
        while _is_active(holder, self._now()):
            assert first is not None and holder is not None
            if _is_local_process(holder) or (holder.get("owner"), holder.get("beat")) != (
                first.get("owner"),
                first.get("beat"),
            ):
                raise _in_use_error(self._study, holder)
            if holder is first:
                _log.warning(
                    "%s; waiting for a sign of life of that process; without one, this search starts soon",
                    _in_use_message(self._study, holder),
                )
            sleep(_POLL_SECONDS)
            holder = self._read()

    def _renew(self) -> None:
        self._write({**self._holder_info, "beat": self._now()})

    def _heartbeat_loop(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.heartbeat()
            except Exception as error:  # if the database stays unavailable, the driver's next write fails
                _log.debug("the lease of study %s could not be renewed: %s", self._study, error)


def _holder_info() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat(timespec="seconds")}


def _is_active(holder: Mapping[str, Any] | None, now: float) -> bool:
    """Whether a lease has not expired at a time in seconds since 1970."""
    if not isinstance(holder, Mapping) or _is_exited_process(holder):
        return False
    beat = holder.get("beat")
    return isinstance(beat, int | float) and now - beat < LEASE_EXPIRY_SECONDS


def _is_local_process(holder: Mapping[str, Any]) -> bool:
    """Whether the holder is, or was, a process of this machine."""
    pid = holder.get("pid")
    return holder.get("host") == platform.node() and isinstance(pid, int) and pid > 0


def _is_exited_process(holder: Mapping[str, Any]) -> bool:
    """Whether the holder was a process of this machine that has ended."""
    return _is_local_process(holder) and not process_exists(int(holder["pid"]))


def _parse_holder(path: Path) -> Mapping[str, Any]:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _in_use_message(study: str, holder: Mapping[str, Any]) -> str:
    details = ", ".join(
        f"{name} {holder[key]}"
        for key, name in (("pid", "process"), ("host", "on"), ("since", "since"))
        if key in holder
    )
    return f"study {study} is being searched already ({details or 'unknown'})"


def _in_use_error(study: str, holder: Mapping[str, Any]) -> NbtError:
    return NbtError(f"{_in_use_message(study, holder)}: wait for it, stop it, or give another name with --study NAME")
