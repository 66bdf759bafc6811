"""Temporary directories that are removed even if their process is killed.

A process holds a file lock on each of its directories, which the operating system releases when the process ends.
Unlocked directories are removed when the next one is created.
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
    """A temporary directory of this process.

    Args:
        prefix: Prefix of the directory's name; it starts with "nbt-".

    Attributes:
        path: The directory.
    """

    def __init__(self, prefix: str) -> None:
        remove_abandoned_directories()
        self.path, self._lock_fd = Path(tempfile.mkdtemp(prefix=prefix)), -1
        unlocked_path = self.path / f"{_LOCK_NAME}.new"
        try:
            self._lock_fd = os.open(unlocked_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
            # Renamed only after locking; otherwise another process could treat the directory as abandoned.
            unlocked_path.rename(self.path / _LOCK_NAME)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Removes the directory; may be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock_fd)
        self._lock_fd = -1


def remove_abandoned_directories() -> None:
    """Removes the directories whose processes have ended."""
    for lock_path in Path(tempfile.gettempdir()).glob(f"nbt-*/{_LOCK_NAME}"):
        # An OSError: the directory is still locked, belongs to another user, or no longer exists.
        with contextlib.suppress(OSError), lock_path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock_path.parent, ignore_errors=True)
