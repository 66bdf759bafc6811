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

_LOCK_NAME = ".held"


class LockedDirectory:
    """A temporary folder of this process.

    Args:
        prefix: Of its name.
    """

    def __init__(self, prefix: str) -> None:
        remove_abandoned_directories()
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        unlocked_path = self.path / f"{_LOCK_NAME}.new"
        self._file = os.open(unlocked_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        # Under its name only once it is locked, or another process could take it for abandoned.
        unlocked_path.rename(self.path / _LOCK_NAME)

    def close(self) -> None:
        """Removes the folder; may be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = -1


def remove_abandoned_directories() -> None:
    """Removes the held folders whose processes are gone."""
    for lock_path in Path(tempfile.gettempdir()).glob(f"nbt-*/{_LOCK_NAME}"):
        with contextlib.suppress(OSError), lock_path.open("rb") as file:  # another user's, or gone by now
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock_path.parent, ignore_errors=True)
