"""StreamFolder: where a stream is kept while it runs and when it is finished; the one truth that reports and MLflow show."""

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


class StreamFolder:
    """A stream's folder.

    Args:
        folder: Made when something is written.
        config: Of the stream.
    """

    def __init__(self, folder: Path, config: StreamConfig) -> None:
        self.folder, self.config = folder, config

    @property
    def checkpoint(self) -> Path:
        """File that a stream goes on from."""
        return self.folder / _CHECKPOINT

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from running this stream.

        Raises:
            NbtError: Another one runs it, or the folder cannot be written.
        """
        name = self.config.name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / _LOCK).touch()
        except OSError as error:
            raise NbtError(f"{self.folder}: cannot keep a stream there ({error.strerror})") from error
        try:
            lock = FileLock(self.folder / _LOCK, name)
        except NbtError as error:
            raise NbtError(f"stream {name} is being run by another process: wait for it or stop it") from error
        try:
            yield
        finally:
            lock.release()

    def forget(self) -> None:
        """Removes the record and the checkpoints."""
        for file in (self.folder / _RECORD, self.folder / _MARKER_FILE, *self.folder.glob(f"{_CHECKPOINT}*")):
            file.unlink(missing_ok=True)

    def read(self) -> StreamRecord | None:
        """Returns the stream as far as it was run, None where it was not.

        Raises:
            NbtError: The file cannot be read.
            UsageError: A stream of this name was run with something else.
        """
        path = self.folder / _RECORD
        try:
            record = StreamRecord.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, NbtError) as error:
            raise NbtError(f"{path}: cannot be read ({error}); --fresh starts over") from error
        kept, wanted = record.config.identity, self.config.identity
        differences = [_IDENTITY_LABELS.get(key, key) for key in wanted if kept[key] != wanted[key]]
        if differences:
            raise UsageError(
                f"stream {self.config.name} was run with other {' and '.join(differences)} than now; "
                "--fresh forgets it and starts over"
            )
        return record

    def write(self, record: StreamRecord) -> None:
        """Writes the stream, whole or not at all.

        Raises:
            NbtError: It cannot be written.
        """
        self._write(_RECORD, json.dumps(record.to_dict(), indent=1) + "\n")

    @property
    def mark(self) -> str:
        """What says that a tracking server was told of the finished stream; "" where none was."""
        try:
            return (self.folder / _MARKER_FILE).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return ""

    def set_sync_marker(self, mark: str) -> None:
        """Sets `mark`.

        Raises:
            NbtError: It cannot be written.
        """
        self._write(_MARKER_FILE, mark + "\n")

    def _write(self, name: str, text: str) -> None:
        try:
            write_all(self.folder, {name: text})
        except OSError as error:
            raise NbtError(f"{self.folder}: cannot keep the stream ({error.strerror or error})") from error
