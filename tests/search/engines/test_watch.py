"""A watch over servers that answer, hang and end."""

from __future__ import annotations

import errno
import queue
import socket

import pytest

from nbt.search.engines.watch import Door, Watch


def door(server: socket.socket, patience: float) -> Door:
    return Door("the server", "127.0.0.1", server.getsockname()[1], patience)


def test_tells_once_that_a_server_is_gone_and_only_then() -> None:
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = socket.create_server(("127.0.0.1", 0))
        doors = [door(other, 0.0), door(server, 0.2)]
        watch = Watch(doors, told.put, period=0.01)
        with pytest.raises(queue.Empty):
            told.get(timeout=0.5)
        server.close()
        assert told.get(timeout=30) == f"the server at 127.0.0.1:{doors[1].port} does not answer any more"
        watch._thread.join()
        assert told.empty()


def test_a_closed_watch_tells_nothing() -> None:
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        watch = Watch([door(server, 0.0)], told.append, period=0.01)
        watch.close()
        watch.close()
        watch._thread.join()
    assert told == []


def test_what_this_process_lacks_is_not_held_against_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> None:
        def connect(*args: object, **options: object) -> None:
            raise OSError(number, "no")

        monkeypatch.setattr(socket, "create_connection", connect)

    somewhere = Door("the server", "127.0.0.1", 1, 1.0)
    fail(errno.EMFILE)
    assert somewhere.answers()
    fail(errno.EHOSTUNREACH)
    assert not somewhere.answers()
