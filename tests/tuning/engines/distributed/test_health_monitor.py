"""A watch over servers that answer, hang and end."""

from __future__ import annotations

import errno
import queue
import socket

import pytest

from nbt.tuning.engines.distributed.health_monitor import Endpoint, HealthMonitor


def endpoint(server: socket.socket, timeout_seconds: float) -> Endpoint:
    return Endpoint("the server", "127.0.0.1", server.getsockname()[1], timeout_seconds)


def test_tells_once_that_a_server_is_gone_and_only_then() -> None:
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = socket.create_server(("127.0.0.1", 0))
        endpoints = [endpoint(other, 0.0), endpoint(server, 0.2)]
        watch = HealthMonitor(endpoints, told.put, period=0.01)
        with pytest.raises(queue.Empty):
            told.get(timeout=0.5)
        server.close()
        assert told.get(timeout=30) == f"the server at 127.0.0.1:{endpoints[1].port} does not answer any more"
        watch._thread.join()
        assert told.empty()


def test_a_closed_watch_tells_nothing() -> None:
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        watch = HealthMonitor([endpoint(server, 0.0)], told.append, period=0.01)
        watch.close()
        watch.close()
        watch._thread.join()
    assert told == []


def test_what_this_process_lacks_is_not_held_against_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> None:
        def connect(*args: object, **options: object) -> None:
            raise OSError(number, "no")

        monkeypatch.setattr(socket, "create_connection", connect)

    somewhere = Endpoint("the server", "127.0.0.1", 1, 1.0)
    fail(errno.EMFILE)
    assert somewhere.is_reachable()
    fail(errno.EHOSTUNREACH)
    assert not somewhere.is_reachable()
