"""Faults of an MLflow tracking server; none may stop a search or change its results."""

from __future__ import annotations

import os
import signal
import socket
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

from faults.kinds.base import Attempt, Fault
from faults.process import Process
from faults.search import TIMEOUT_SECONDS


class _ServerFault(Fault):
    """A server that never accepts a run; `nbt sync` writes the runs to a database afterwards."""

    phases = ("start",)
    codes = (0,)
    seconds: ClassVar[float] = 0.0

    def arrange(self, attempt: Attempt) -> None:
        self._server: int | None = None
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        attempt.search.options[:] = ["--tracking-uri", f"http://user:secret-{port}@127.0.0.1:{port}"]
        self._start(port)

    def _start(self, port: int) -> None:
        self._server = os.fork()
        if not self._server:
            try:
                _serve(port, self.seconds)
            finally:
                os._exit(0)
        time.sleep(0.2)

    def inject(self, attempt: Attempt, process: Process) -> bool:
        process.wait(TIMEOUT_SECONDS)
        return True

    def restore(self, attempt: Attempt) -> list[str]:
        if self._server is not None:
            os.kill(self._server, signal.SIGKILL)
            os.waitpid(self._server, 0)
        return []

    def problems(self, attempt: Attempt, process: Process) -> list[str]:
        problems = [] if process.errors.count("cannot be written") == 1 else ["the outage caused not one warning"]
        if "secret" in process.errors + process.output:
            problems.append("the password of the server was printed")
        return problems


class UnreachableServer(_ServerFault):
    """Nothing listens at the address of the server."""

    kind = "tracking server down"

    def _start(self, port: int) -> None:
        pass


class BrokenServer(_ServerFault):
    """The server answers every request with 500."""

    kind = "tracking server answers 500"


class SlowServer(_ServerFault):
    """The server takes two seconds for every answer, which is 500."""

    kind = "tracking server slow"
    seconds = 2.0


def _serve(port: int, seconds: float) -> None:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            time.sleep(seconds)
            self.send_response(500)
            self.end_headers()

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - names of the base class

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
            pass

    HTTPServer(("127.0.0.1", port), Handler).serve_forever()
