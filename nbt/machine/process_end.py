"""The end of this process without that of the interpreter."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn


def end_at_once(code: int) -> NoReturn:
    """Ends the process after its exit handlers, but without the end of the interpreter.

    That searches all objects of all libraries, for more than a second where PyTorch is imported.

    Args:
        code: The exit code.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
