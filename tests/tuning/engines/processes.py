"""Waiting for processes of other tests' making, and looking after them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

TIMEOUT_SECONDS = 500.0


def wait_for(what: Callable[[], bool]) -> bool:
    """Whether it came true in time; a busy machine gets minutes."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not what():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.05)
    return True


def is_running(pid: int) -> bool:
    """Whether a process is_running; one that has ended and was not asked for its exit code does not."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def find_processes(text: str) -> list[int]:
    """Ids of the processes in whose environment or command line a text is."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if text.encode() in _command_and_environment(path)]


def process_title(pid: int) -> str:
    """What a process calls itself in its command line, "" where it has ended; Ray's workers are "ray::..."."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode().strip()
    except OSError:
        return ""


def _command_and_environment(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    except OSError:
        return b""
