"""Studies on a PostgreSQL server that restarts, and on a connection that breaks or stalls."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from faults.kinds.base import Attempt, Fault
from faults.process import Process
from faults.proxy import start_proxy
from faults.search import Search

_OWNER = "postgres"  # the server refuses to run as root


class _Server:
    """A PostgreSQL server with a folder of its own, on localhost."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nbtpg", dir="/tmp"))
        shutil.chown(self.folder, _user())
        self.port = free_port()
        self._run("initdb", "-D", "data", "-U", _OWNER, "-A", "trust", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        return self.url_of(self.port)

    def url_of(self, port: int) -> str:
        return f"postgresql+psycopg://{_OWNER}@127.0.0.1:{port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-l", "log", "-o", options, "-w", "start")

    def stop(self, mode: str) -> None:
        self._run("pg_ctl", "-D", "data", "-m", mode, "-w", "stop")

    def close(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *command: str) -> None:
        # A server keeps the pipes of its starter open, so that their end cannot be waited for.
        subprocess.run(
            command, cwd=self.folder, user=_user(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
        )


def _user() -> str:
    return _OWNER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def free_port() -> int:
    """Returns a port of localhost at which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class _ServerStudy(Fault):
    """A study on a PostgreSQL server."""

    codes = (0, 1)

    def __init__(self) -> None:
        self._server: _Server | None = None

    @property
    def server(self) -> _Server:
        """The server, which `adapt` starts."""
        assert self._server is not None
        return self._server

    @classmethod
    def missing(cls) -> str | None:
        if importlib.util.find_spec("psycopg") is None:
            return "psycopg is not installed"
        if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
            return "PostgreSQL is not installed"
        if os.geteuid() == 0 and _OWNER not in {entry.pw_name for entry in pwd.getpwall()}:
            return f"the server does not run as root, and there is no user {_OWNER}"
        return None

    def adapt(self, search: Search) -> Search:
        self._server = _Server()
        return dataclasses.replace(search, storage=self.server.url)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


class RestartedServer(_ServerStudy):
    """The server is stopped, with its connections or as by a crash, and started again up to three seconds later."""

    kind = "PostgreSQL restarted"

    def inject(self, attempt: Attempt, process: Process) -> bool:
        self.server.stop(attempt.rng.choice(("fast", "immediate")))
        hit = process.poll() is None
        time.sleep(attempt.rng.uniform(0.0, 3.0))
        self.server.start()
        return hit


class LostConnections(_ServerStudy):
    """A proxy before the server closes all connections, or passes nothing on for up to four seconds."""

    kind = "connections to PostgreSQL dropped or stalled"

    def __init__(self) -> None:
        super().__init__()
        self._proxy: int | None = None

    def adapt(self, search: Search) -> Search:
        search = super().adapt(search)
        port = free_port()
        self._proxy = start_proxy(port, self.server.port)
        return dataclasses.replace(search, storage=self.server.url_of(port))

    def inject(self, attempt: Attempt, process: Process) -> bool:
        hit = process.poll() is None
        assert self._proxy is not None
        if attempt.rng.random() < 0.5:
            os.kill(self._proxy, signal.SIGUSR1)
        else:
            os.kill(self._proxy, signal.SIGSTOP)
            time.sleep(attempt.rng.uniform(0.5, 4.0))
            os.kill(self._proxy, signal.SIGCONT)
        return hit

    def close(self) -> None:
        if self._proxy is not None:
            os.kill(self._proxy, signal.SIGKILL)
            os.waitpid(self._proxy, 0)
        super().close()
