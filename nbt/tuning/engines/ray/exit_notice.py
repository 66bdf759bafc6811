"""A message for the user when native code ends this process without raising an exception."""

from __future__ import annotations

import contextlib
import subprocess

# `close` sends one line; if the pipe ends without it, the process that holds the pipe has ended.
_SCRIPT = 'read -r word || printf "%s\\n" "$0" >&2'


class ExitNotice:
    """Prints a message to stderr if this process ends before `close` is called, whatever the cause.

    A separate shell process waits for the end, because Ray's native code exits at once when the raylet is gone.

    Args:
        text: The message, one line.
    """

    def __init__(self, text: str) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", _SCRIPT, text], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def close(self) -> None:
        """Cancels the message; may be called twice."""
        with contextlib.suppress(OSError, ValueError):
            self._process.communicate(b"\n")
