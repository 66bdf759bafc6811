"""Last words: what people are told where this process is ended from within, without an error to raise."""

from __future__ import annotations

import contextlib
import subprocess

# Reads one line: it comes from `close`, or the pipe ends with the process that holds it.
_SCRIPT = 'read -r word || printf "%s\\n" "$0" >&2'


class ExitNotice:
    """Says something on stderr when this process ends before `close`, however it ends.

    A small process of its own waits for that: Ray's native code ends a process whose raylet is gone on the spot.

    Args:
        text: One line.
    """

    def __init__(self, text: str) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", _SCRIPT, text], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def close(self) -> None:
        """Takes them back; may be called twice."""
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(OSError, ValueError):
            pipe.write(b"\n")
            pipe.close()
        self._process.wait()
