"""The connection monitor with servers that respond and that end."""

from __future__ import annotations

import errno
import queue
import socket

import pytest

from nbt.tuning.engines.ray.connection_monitor import ConnectionMonitor, Endpoint


def make_endpoint(server: socket.socket, timeout_seconds: float) -> Endpoint:
    return Endpoint("the server", "127.0.0.1", server.getsockname()[1], timeout_seconds)


def test_reports_a_lost_server_once() -> None:
    reported: queue.SimpleQueue[str] = queue.SimpleQueue()
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = socket.create_server(("127.0.0.1", 0))
        endpoints = [make_endpoint(other, 0.0), make_endpoint(server, 0.2)]
        monitor = ConnectionMonitor(endpoints, reported.put, period=0.01)
        with pytest.raises(queue.Empty):
            reported.get(timeout=0.5)
        server.close()
        assert reported.get(timeout=30) == f"the server at 127.0.0.1:{endpoints[1].port} no longer responds"
        monitor._thread.join()
        assert reported.empty()


def test_a_closed_monitor_reports_nothing() -> None:
    reported: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        monitor = ConnectionMonitor([make_endpoint(server, 0.0)], reported.append, period=0.01)
        monitor.close()
        monitor.close()
        monitor._thread.join()
    assert reported == []


def test_errors_of_this_process_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> None:
        def connect(*args: object, **options: object) -> None:
            raise OSError(number, "no")

        monkeypatch.setattr(socket, "create_connection", connect)

    server = Endpoint("the server", "127.0.0.1", 1, 1.0)
    fail(errno.EMFILE)
    assert server.is_reachable()
    fail(errno.EHOSTUNREACH)
    assert not server.is_reachable()
