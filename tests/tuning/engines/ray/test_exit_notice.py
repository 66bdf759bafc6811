"""The exit notice of a process that ends in different ways."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys
from nbt.tuning.engines.ray.exit_notice import ExitNotice

notice = ExitNotice("it's over; $HOME is kept")
exec(sys.argv[1])
"""
CLOSE = "notice.close(); notice.close()"


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (CLOSE, ""),
        ("os._exit(1)", "it's over; $HOME is kept\n"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "it's over; $HOME is kept\n"),
        (f"{CLOSE}; os._exit(1)", ""),
    ],
)
def test_the_message_at_the_end(end: str, expected: str) -> None:
    process = subprocess.run([sys.executable, "-c", SCRIPT, end], capture_output=True, text=True, check=False)
    assert (process.stdout, process.stderr) == ("", expected)
