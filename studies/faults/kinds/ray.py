"""A search on a Ray cluster of two nodes, one of which is lost, whose head is lost, or whose object store is full."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

from faults.kinds.base import Attempt, Fault
from faults.process import REPOSITORY, Process
from faults.search import Search


class _Cluster(Fault):
    """A search with one worker per node; the local engine resumes."""

    phases = ("trials", "finals", "train")
    workers = (2,)
    engine = "ray"
    command: ClassVar[str]

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def adapt(self, search: Search) -> Search:
        self._folder = Path(tempfile.mkdtemp(prefix="nbtr", dir="/tmp"))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "studies")]),
            "RAY_TMPDIR": str(self._folder),
            "NBT_CACHE": str(self._folder / "cache"),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.ray_cluster"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,
        )
        address = self._read_line()
        if not address:
            raise RuntimeError("the Ray cluster did not start")
        search.engine_options[:] = ["--ray-address", address]
        # Ray ends a process whose head has been unreachable for this long; the search must end before.
        search.environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "24"
        return search

    def inject(self, attempt: Attempt, process: Process) -> bool:
        hit = process.poll() is None
        self._send(self.command)
        self._read_line()
        return hit

    def restore(self, attempt: Attempt) -> list[str]:
        self.close()  # the local engine resumes without the cluster
        return []

    def close(self) -> None:
        if self._process is None:
            return
        self._send("close")
        self._process.wait(60.0)
        self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _send(self, command: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def _read_line(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class LostNode(_Cluster):
    """The raylet and the processes of one node are killed; the search must go on with the other one."""

    kind = "Ray node lost"
    codes = (0,)
    command = "node"


class LostHead(_Cluster):
    """The server of the cluster's head is killed; the search ends soon, and all results are saved."""

    kind = "Ray head lost"
    codes = (0, 1)
    command = "head"


class FullObjectStore(_Cluster):
    """Another program fills the object store of the cluster; the search must go on."""

    kind = "Ray object store full"
    codes = (0,)
    command = "fill"
