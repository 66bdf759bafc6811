"""Temporary folders that do not outlive their processes for long, even where these are killed.

Each is held by a lock of the operating system, which vanishes with the process; what nobody holds any more is removed
when the next one is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_HOLD = ".held"


class HeldFolder:
    """A temporary folder of this process.

    Args:
        prefix: Of its name.
    """

    def __init__(self, prefix: str) -> None:
        clear_abandoned()
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        taken = self.path / f"{_HOLD}.new"
        self._file = os.open(taken, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        # Under its name only once it is locked, or another process could take it for abandoned.
        taken.rename(self.path / _HOLD)

    def close(self) -> None:
        """Removes the folder; may be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = -1


def clear_abandoned() -> None:
    """Removes the held folders whose processes are gone."""
    for hold in Path(tempfile.gettempdir()).glob(f"nbt-*/{_HOLD}"):
        with contextlib.suppress(OSError), hold.open("rb") as file:  # another user's, or gone by now
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(hold.parent, ignore_errors=True)
