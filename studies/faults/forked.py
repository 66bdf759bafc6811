"""Calls in a forked process, which may start threads that this process must not have."""

from __future__ import annotations

import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what a function returns in a forked process.

    Raises:
        RuntimeError: The function raised an exception; the message has its traceback.
    """
    with tempfile.NamedTemporaryFile() as file:
        pid = os.fork()
        if not pid:
            try:
                try:
                    result = (True, function(*arguments))
                except Exception:
                    result = (False, traceback.format_exc())
                Path(file.name).write_bytes(pickle.dumps(result))
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        succeeded, value = pickle.loads(Path(file.name).read_bytes())
    if not succeeded:
        raise RuntimeError(value)
    return value
