"""Helpers to wait for processes and to inspect them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

TIMEOUT_SECONDS = 500.0


def wait_for(condition: Callable[[], bool]) -> bool:
    """Waits until a condition holds; returns False after `TIMEOUT_SECONDS`, which suffice on a busy machine."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.05)
    return True


def is_running(pid: int) -> bool:
    """Returns whether a process is running; a zombie is not."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def find_processes(text: str) -> list[int]:
    """Returns the IDs of the processes whose environment or command line contains a text."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if text.encode() in _command_and_environment(path)]


def process_title(pid: int) -> str:
    """Returns the title of a process, such as "ray::..." of Ray's workers; "" if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode().strip()
    except OSError:
        return ""


def _command_and_environment(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    except OSError:
        return b""
