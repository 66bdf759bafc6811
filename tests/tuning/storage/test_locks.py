from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nbt.errors import NbtError, UsageError
from nbt.tuning.storage.locks import (
    HEARTBEAT_SECONDS,
    LEASE_EXPIRY_SECONDS,
    FileLock,
    LeaseLock,
    lease_message,
    locked_file_message,
)


class TestFileLock:
    def test_the_error_of_a_second_driver_names_the_holder(self, tmp_path: Path) -> None:
        lock = FileLock(tmp_path / "deep" / "a.lock", "study-a")
        with pytest.raises(NbtError) as caught:
            FileLock(tmp_path / "deep" / "a.lock", "study-a")
        message = str(caught.value)
        assert not isinstance(caught.value, UsageError)
        assert "study study-a" in message
        assert f"process {os.getpid()}" in message
        assert os.uname().nodename in message
        assert "since 20" in message
        lock.release()
        FileLock(tmp_path / "deep" / "a.lock", "study-a").release()

    def test_releasing_twice(self, tmp_path: Path) -> None:
        lock = FileLock(tmp_path / "a.lock", "study-a")
        lock.release()
        lock.release()

    def test_it_ends_with_a_killed_process(self, tmp_path: Path) -> None:
        code = (
            "import os, sys, pathlib; from nbt.tuning.storage.locks import FileLock; "
            f"lock = FileLock(pathlib.Path({str(tmp_path / 'a.lock')!r}), 'study-a'); print('held', flush=True); "
            "sys.stdin.read()"
        )
        driver = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "held\n"
            with pytest.raises(NbtError, match=f"process {driver.pid}"):
                FileLock(tmp_path / "a.lock", "study-a")
        finally:
            driver.kill()
            driver.communicate()
        FileLock(tmp_path / "a.lock", "study-a").release()

    def test_a_forked_child_does_not_hold_it(self, tmp_path: Path) -> None:
        code = (
            "import os, sys, pathlib; from nbt.tuning.storage.locks import FileLock; "
            f"lock = FileLock(pathlib.Path({str(tmp_path / 'a.lock')!r}), 'study-a'); child = os.fork()\n"
            "if not child: print(os.getpid(), flush=True)\n"  # by the child, which then has given up the lock
            "sys.stdin.read()"  # the parent is killed, the child ends with the pipe
        )
        driver = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert driver.stdout is not None and driver.stdin is not None
        try:
            child = int(driver.stdout.readline())
            with pytest.raises(NbtError, match=f"process {driver.pid}"):
                FileLock(tmp_path / "a.lock", "study-a")
            driver.kill()
            driver.wait()
            FileLock(tmp_path / "a.lock", "study-a").release()
            os.kill(child, 0)  # it is still alive
        finally:
            driver.kill()
            driver.stdin.close()
            driver.stdout.close()
            driver.wait()

    def test_a_folder_that_cannot_be_created(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(NbtError, match="cannot lock study study-a"):
            FileLock(tmp_path / "file" / "a.lock", "study-a")

    def test_a_lock_file_with_invalid_content(self, tmp_path: Path) -> None:
        path = tmp_path / "a.lock"
        path.write_bytes(b"[1, 2")
        lock = FileLock(path, "study-a")
        path.write_text("[1]")
        with pytest.raises(NbtError, match="is being searched already"):
            FileLock(path, "study-a")
        lock.release()


class LeaseAttribute:
    """Simulates the lease attribute of a study in a database on a server, and the clock of the machines."""

    def __init__(self) -> None:
        self.value: dict | None = None
        self.now = 1000.0
        self.slept = 0.0
        self.alive: list[LeaseLock] = []

    def lease(self, host: str | None = None) -> LeaseLock:
        lease = LeaseLock(
            "study-a", lambda: self.value, self.write, now=lambda: self.now, sleep=self.sleep, heartbeat_seconds=None
        )
        if host is not None:
            lease._holder_info["host"] = host
            lease.heartbeat()
        return lease

    def sleep(self, seconds: float) -> None:
        """Advances the clock; each driver in `alive` sends a heartbeat every `HEARTBEAT_SECONDS`."""
        self.now += seconds
        self.slept += seconds
        for lease in self.alive:
            if self.now - (self.value or {})["beat"] >= HEARTBEAT_SECONDS:
                lease.heartbeat()

    def write(self, value: dict | None) -> None:
        self.value = None if value is None else dict(value)


class TestLease:
    def test_the_second_driver_is_refused(self) -> None:
        attribute = LeaseAttribute()
        lease = attribute.lease(host="machine-2")
        attribute.alive.append(lease)
        with pytest.raises(NbtError, match="on machine-2"):
            attribute.lease()
        assert attribute.slept <= HEARTBEAT_SECONDS + 1
        lease.check()
        lease.release()
        attribute.lease().release()
        assert attribute.value is None

    def test_a_second_driver_on_the_same_machine_is_refused_without_waiting(self) -> None:
        attribute = LeaseAttribute()
        attribute.lease()
        with pytest.raises(NbtError, match=f"process {os.getpid()}"):
            attribute.lease()
        assert attribute.slept == 0

    def test_it_expires_without_heartbeats(self, caplog: pytest.LogCaptureFixture) -> None:
        attribute = LeaseAttribute()
        lease = attribute.lease(host="machine-2")
        attribute.now += LEASE_EXPIRY_SECONDS - 1
        lease.heartbeat()
        attribute.now += LEASE_EXPIRY_SECONDS - 10
        assert not caplog.messages
        attribute.lease()
        assert attribute.slept == 10
        assert "on machine-2" in caplog.messages[0]

    def test_another_driver_acquires_it_while_waiting(self) -> None:
        attribute = LeaseAttribute()
        attribute.lease(host="machine-2")
        holders = [attribute.value, {**(attribute.value or {}), "owner": "another", "host": "machine-3"}]
        with pytest.raises(NbtError, match="on machine-3"):
            LeaseLock("study-a", lambda: holders.pop(0), attribute.write, now=lambda: 1000.0, sleep=attribute.sleep)

    def test_an_ended_process_of_this_machine_holds_no_lease(self) -> None:
        attribute = LeaseAttribute()
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        lease = attribute.lease()
        attribute.value = {**(attribute.value or {}), "pid": ended.pid}
        attribute.lease()
        lease.heartbeat()
        with pytest.raises(NbtError):
            lease.check()

    def test_a_driver_that_lost_the_lease_gets_an_error_and_does_not_release_it(self) -> None:
        attribute = LeaseAttribute()
        lease = attribute.lease(host="machine-2")
        attribute.now += LEASE_EXPIRY_SECONDS
        other = attribute.lease()
        lease.check()
        lease.heartbeat()
        with pytest.raises(NbtError, match="is being searched already"):
            lease.check()
        lease.release()
        assert (attribute.value or {})["owner"] == other._holder_info["owner"]
        other.check()

    def test_two_drivers_that_acquire_it_at_the_same_time(self) -> None:
        attribute = LeaseAttribute()
        reads = []

        def read_before_first_write() -> dict | None:
            reads.append(attribute.value)
            return None if len(reads) == 1 else attribute.value

        first = attribute.lease(host="machine-2")
        second = LeaseLock("study-a", read_before_first_write, attribute.write, now=lambda: 0.0, heartbeat_seconds=None)
        first.heartbeat()
        second.check()
        with pytest.raises(NbtError):
            first.check()

    def test_an_invalid_attribute_is_ignored(self) -> None:
        attribute = LeaseAttribute()
        attribute.value = {"beat": "soon"}
        attribute.lease()

    @pytest.mark.parametrize("error", [None, NbtError("unavailable"), OSError("unavailable")])
    def test_the_heartbeat_thread_survives_errors_of_the_database(self, error: Exception | None) -> None:
        attribute = LeaseAttribute()
        errors = [error] if error is not None else []
        main = threading.get_ident()

        def read() -> dict | None:
            if threading.get_ident() != main and errors:
                raise errors.pop()
            return attribute.value

        lease = LeaseLock("study-a", read, attribute.write, now=lambda: attribute.now, heartbeat_seconds=0.001)
        attribute.now = 5000.0
        for _ in range(10_000):
            if (attribute.value or {})["beat"] == 5000.0:
                break
            lease._stop.wait(0.001)
        assert (attribute.value or {})["beat"] == 5000.0
        assert not errors
        lease.release()
        assert lease._thread is None


def test_who_searches_a_study_is_known_without_taking_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "studies.db.s.lock"
    assert locked_file_message(path, "s") is None
    assert not path.exists()
    lock = FileLock(path, "s")
    message = locked_file_message(path, "s")
    assert message is not None and f"process {os.getpid()}" in message
    lock.release()
    assert locked_file_message(path, "s") is None
    FileLock(path, "s").release()


def test_a_lease_is_active_until_it_expires_or_its_process_ends() -> None:
    now = datetime.now(UTC).timestamp()
    elsewhere = {"owner": "x", "host": "far", "pid": 1, "beat": now}
    assert "on far" in str(lease_message(elsewhere, "s"))
    assert lease_message({**elsewhere, "beat": now - 2 * LEASE_EXPIRY_SECONDS}, "s") is None
    assert lease_message(None, "s") is None
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert lease_message({**elsewhere, "host": platform.node(), "pid": ended.pid}, "s") is None
