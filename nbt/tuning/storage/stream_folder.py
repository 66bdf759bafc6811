"""The folder in which a stream of tasks is stored: its record, checkpoints and lock.

Reports and MLflow show the stored record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbt.errors import NbtError, UsageError
from nbt.files import write_all
from nbt.tuning.storage.locks import FileLock
from nbt.tuning.storage.stream_record import StreamConfig, StreamRecord

_RECORD, _CHECKPOINT, _LOCK, _MARKER_FILE = "stream.json", "checkpoint.pt", "lock", "tracked"
_IDENTITY_LABELS = {
    "data_hash": "images, labels or split",
    "weights_hash": "weights",
    "backbone": "backbone",
    "image_size": "image size",
    "settings": "settings",
}


def read_stream(folder: Path) -> StreamRecord | None:
    """Returns the stream that is stored in a folder, finished or not; None without one.

    Raises:
        NbtError: The file cannot be read.
    """
    path = folder / _RECORD
    try:
        return StreamRecord.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, NbtError) as error:
        raise NbtError(f"{path}: cannot be read ({error}); use --fresh to start over") from error


class StreamFolder:
    """The folder of a stream.

    Args:
        folder: The folder; it is created when something is written.
        config: Configuration of the stream.
    """

    def __init__(self, folder: Path, config: StreamConfig) -> None:
        self.folder, self.config = folder, config

    @property
    def checkpoint(self) -> Path:
        """The checkpoint file from which the stream resumes."""
        return self.folder / _CHECKPOINT

    @contextmanager
    def held(self) -> Iterator[None]:
        """Returns a context that locks the stream for this process.

        Raises:
            NbtError: Another process runs the stream, or the folder cannot be written.
        """
        name = self.config.name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / _LOCK).touch()
        except OSError as error:
            raise NbtError(f"{self.folder}: cannot store a stream there ({error.strerror})") from error
        try:
            lock = FileLock(self.folder / _LOCK, name)
        except NbtError as error:
            raise NbtError(f"stream {name} is being run by another process: wait for it or stop it") from error
        try:
            yield
        finally:
            lock.release()

    def forget(self) -> None:
        """Removes the record, the marker and the checkpoints."""
        for file in (self.folder / _RECORD, self.folder / _MARKER_FILE, *self.folder.glob(f"{_CHECKPOINT}*")):
            file.unlink(missing_ok=True)

    def read(self) -> StreamRecord | None:
        """Returns the stored record, finished or not; None without one.

        Raises:
            NbtError: The file cannot be read.
            UsageError: The stored stream has the same name but another configuration.
        """
        record = read_stream(self.folder)
        if record is None:
            return None
        stored, requested = record.config.identity, self.config.identity
        differences = [_IDENTITY_LABELS.get(key, key) for key in requested if stored[key] != requested[key]]
        if differences:
            raise UsageError(
                f"stream {self.config.name} was run with different {' and '.join(differences)}; "
                "use --fresh to delete it and start over"
            )
        return record

    def write(self, record: StreamRecord) -> None:
        """Writes the record atomically.

        Raises:
            NbtError: The record cannot be written.
        """
        self._write(_RECORD, json.dumps(record.to_dict(), indent=1) + "\n")

    @property
    def mark(self) -> str:
        """The marker that the finished stream was written to a tracking server; "" without one."""
        try:
            return (self.folder / _MARKER_FILE).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return ""

    def set_sync_marker(self, mark: str) -> None:
        """Stores `mark`.

        Raises:
            NbtError: The marker cannot be written.
        """
        self._write(_MARKER_FILE, mark + "\n")

    def _write(self, name: str, text: str) -> None:
        try:
            write_all(self.folder, {name: text})
        except OSError as error:
            raise NbtError(f"{self.folder}: cannot store the stream ({error.strerror or error})") from error
