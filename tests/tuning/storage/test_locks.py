from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nbt.errors import NbtError, UsageError
from nbt.tuning.storage.locks import HEARTBEAT_SECONDS, LEASE_EXPIRY_SECONDS, FileLock, LeaseLock


class TestFileLock:
    def test_the_second_driver_is_told_who_holds_it(self, tmp_path: Path) -> None:
        lock = FileLock(tmp_path / "deep" / "a.lock", "mine")
        with pytest.raises(NbtError) as caught:
            FileLock(tmp_path / "deep" / "a.lock", "mine")
        message = str(caught.value)
        assert not isinstance(caught.value, UsageError)
        assert "study mine" in message
        assert f"process {os.getpid()}" in message
        assert os.uname().nodename in message
        assert "since 20" in message
        lock.release()
        FileLock(tmp_path / "deep" / "a.lock", "mine").release()

    def test_releasing_twice(self, tmp_path: Path) -> None:
        lock = FileLock(tmp_path / "a.lock", "mine")
        lock.release()
        lock.release()

    def test_it_vanishes_with_a_killed_process(self, tmp_path: Path) -> None:
        code = (
            "import os, sys, pathlib; from nbt.tuning.storage.locks import FileLock; "
            f"lock = FileLock(pathlib.Path({str(tmp_path / 'a.lock')!r}), 'mine'); print('held', flush=True); "
            "sys.stdin.read()"
        )
        driver = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "held\n"
            with pytest.raises(NbtError, match=f"process {driver.pid}"):
                FileLock(tmp_path / "a.lock", "mine")
        finally:
            driver.kill()
            driver.communicate()
        FileLock(tmp_path / "a.lock", "mine").release()

    def test_a_forked_child_does_not_hold_it(self, tmp_path: Path) -> None:
        lock = FileLock(tmp_path / "a.lock", "mine")
        (wait, end), (hear, say) = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.close(end)
            os.write(say, b"x")
            os.read(wait, 1)  # until the parent closes its end
            os._exit(0)
        try:
            os.read(hear, 1)
            with pytest.raises(NbtError):
                FileLock(tmp_path / "a.lock", "mine")
            lock.close_in_child()  # as the end of the process does
            FileLock(tmp_path / "a.lock", "mine").release()
        finally:
            for end_of_pipe in (end, wait, hear, say):
                os.close(end_of_pipe)
            os.waitpid(child, 0)

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(NbtError, match="cannot lock study mine"):
            FileLock(tmp_path / "file" / "a.lock", "mine")

    def test_a_lock_file_full_of_garbage(self, tmp_path: Path) -> None:
        path = tmp_path / "a.lock"
        path.write_bytes(b"[1, 2")
        lock = FileLock(path, "mine")
        path.write_text("[1]")
        with pytest.raises(NbtError, match="another driver"):
            FileLock(path, "mine")
        lock.release()


class Attribute:
    """An attribute of a study in a database on a server, and the clock of the machines."""

    def __init__(self) -> None:
        self.value: dict | None = None
        self.now = 1000.0
        self.slept = 0.0
        self.beating: list[LeaseLock] = []

    def lease(self, host: str | None = None) -> LeaseLock:
        lease = LeaseLock(
            "mine", lambda: self.value, self.write, now=lambda: self.now, sleep=self.sleep, heartbeat_seconds=None
        )
        if host is not None:
            lease._holder_info["host"] = host
            lease.heartbeat()
        return lease

    def sleep(self, seconds: float) -> None:
        """Passes the time; of the drivers that live, each beats every `HEARTBEAT_SECONDS`."""
        self.now += seconds
        self.slept += seconds
        for lease in self.beating:
            if self.now - (self.value or {})["beat"] >= HEARTBEAT_SECONDS:
                lease.heartbeat()

    def write(self, value: dict | None) -> None:
        self.value = None if value is None else dict(value)


class TestLease:
    def test_the_second_driver_is_refused(self) -> None:
        attribute = Attribute()
        lease = attribute.lease(host="elsewhere")
        attribute.beating.append(lease)
        with pytest.raises(NbtError, match="on elsewhere"):
            attribute.lease()
        assert attribute.slept <= HEARTBEAT_SECONDS + 1
        lease.check()
        lease.release()
        attribute.lease().release()
        assert attribute.value is None

    def test_one_of_this_machine_is_refused_without_waiting(self) -> None:
        attribute = Attribute()
        attribute.lease()
        with pytest.raises(NbtError, match=f"process {os.getpid()}"):
            attribute.lease()
        assert attribute.slept == 0

    def test_it_expires_without_a_beat_and_lives_with_one(self, caplog: pytest.LogCaptureFixture) -> None:
        attribute = Attribute()
        lease = attribute.lease(host="elsewhere")
        attribute.now += LEASE_EXPIRY_SECONDS - 1
        lease.heartbeat()
        attribute.now += LEASE_EXPIRY_SECONDS - 10
        assert not caplog.messages
        attribute.lease()
        assert attribute.slept == 10
        assert "on elsewhere" in caplog.messages[0]

    def test_another_takes_it_meanwhile(self) -> None:
        attribute = Attribute()
        attribute.lease(host="elsewhere")
        holders = [attribute.value, {**(attribute.value or {}), "owner": "another", "host": "yonder"}]
        with pytest.raises(NbtError, match="on yonder"):
            LeaseLock("mine", lambda: holders.pop(0), attribute.write, now=lambda: 1000.0, sleep=attribute.sleep)

    def test_a_dead_process_of_this_machine_holds_nothing(self) -> None:
        attribute = Attribute()
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        lease = attribute.lease()
        attribute.value = {**(attribute.value or {}), "pid": gone.pid}
        attribute.lease()
        lease.heartbeat()
        with pytest.raises(NbtError):
            lease.check()

    def test_who_lost_it_is_told_and_leaves_it_alone(self) -> None:
        attribute = Attribute()
        lease = attribute.lease(host="elsewhere")
        attribute.now += LEASE_EXPIRY_SECONDS
        other = attribute.lease()
        lease.check()
        lease.heartbeat()
        with pytest.raises(NbtError, match="another driver"):
            lease.check()
        lease.release()
        assert (attribute.value or {})["owner"] == other._holder_info["owner"]
        other.check()

    def test_two_that_take_it_at_once(self) -> None:
        attribute = Attribute()
        reads = []

        def read_before_the_other_wrote() -> dict | None:
            reads.append(attribute.value)
            return None if len(reads) == 1 else attribute.value

        first = attribute.lease(host="elsewhere")
        second = LeaseLock(
            "mine", read_before_the_other_wrote, attribute.write, now=lambda: 0.0, heartbeat_seconds=None
        )
        first.heartbeat()
        second.check()
        with pytest.raises(NbtError):
            first.check()

    def test_garbage_is_no_holder(self) -> None:
        attribute = Attribute()
        attribute.value = {"beat": "soon"}
        attribute.lease()

    @pytest.mark.parametrize("trouble", [None, NbtError("away"), OSError("away")])
    def test_the_thread_beats_on_whatever_happens_to_the_database(self, trouble: Exception | None) -> None:
        attribute = Attribute()
        troubles = [trouble] if trouble is not None else []
        main = threading.get_ident()

        def read() -> dict | None:
            if threading.get_ident() != main and troubles:
                raise troubles.pop()
            return attribute.value

        lease = LeaseLock("mine", read, attribute.write, now=lambda: attribute.now, heartbeat_seconds=0.001)
        attribute.now = 5000.0
        for _ in range(10_000):
            if (attribute.value or {})["beat"] == 5000.0:
                break
            lease._stop.wait(0.001)
        assert (attribute.value or {})["beat"] == 5000.0
        assert not troubles
        lease.release()
        assert lease._thread is None
