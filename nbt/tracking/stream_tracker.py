"""MLflow tracking of streams of tasks: one run per stream, with curves of the accuracy on every task.

The stored stream is the source of truth and MLflow a projection of it, as for studies (`nbt.tracking`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nbt.report.streams.write import FILES
from nbt.tracking import RunStore, TrackingConnection, may_have_runs, open_store, redact_uri, resolve_uri
from nbt.tracking.run_store import RunOwner, task_owner
from nbt.tracking.stream_run_specs import STREAM_KEY, stream_id, stream_run
from nbt.tracking.study_tracker import write_runs
from nbt.tuning.storage.stream_record import StreamRecord

_FAILURE_CONSEQUENCE = (
    "the stream continues, and its run is written after the next task or when the same command is repeated"
)


def stream_owner(record: StreamRecord) -> RunOwner:
    """Returns the owner of a stream's run."""
    return task_owner(record.config, stream_id(record), STREAM_KEY, record.facts)


def sync_stream(record: StreamRecord, uri: str | None = None, *, reports: Path) -> dict[str, int]:
    """Writes the run of a stream; a repeated call changes nothing.

    Args:
        record: The stream.
        uri: See `resolve_uri`.
        reports: Folder of reports; the report of the stream, if it has one of its own, is uploaded to its run.

    Returns:
        Number of runs that are "written", "updated" and "unchanged".

    Raises:
        UsageError: The URI is malformed.
        NbtError: The store cannot be written.
    """
    folder = reports / record.config.name
    files = [folder / name for name in FILES if (folder / name).is_file()]
    return write_runs(uri, stream_owner(record), [stream_run(record)], lambda store: store.log_files(files))


class StreamTracker:
    """Writes streams to MLflow while they run; failures of MLflow do not affect the streams.

    Args:
        uri: See `nbt.tracking.resolve_uri`.
        connection: Creates the connection to the store from its URI; replaceable for tests.

    Raises:
        UsageError: The URI is malformed.
    """

    def __init__(
        self, uri: str | None = None, *, connection: Callable[[str], TrackingConnection] = TrackingConnection
    ) -> None:
        self.uri = resolve_uri(uri)
        self._connection = connection(self.uri)
        self._stores: dict[str, RunStore] = {}
        self._empty = not may_have_runs(self.uri)

    def mark(self, record: StreamRecord) -> str:
        """Returns a marker of a stream that was written completely: the store and a hash of the run."""
        return f"{redact_uri(self.uri)} {stream_run(record).content_hash}"

    def is_logged(self, record: StreamRecord, mark: str) -> bool:
        """Returns whether a marker belongs to this store and stream, and the store still exists."""
        return not self._empty and mark == self.mark(record)

    def log_progress(self, record: StreamRecord) -> None:
        """Writes the progress of a running stream."""
        if self._connection.retry_due:
            self._connection.attempt(partial(self._write, record, live=True), _FAILURE_CONSEQUENCE)

    def stream_ended(self, record: StreamRecord) -> bool:
        """Writes a finished or stopped stream and returns whether that succeeded."""
        self._connection.retry_now()
        return self._connection.attempt(partial(self._write, record, live=False), _FAILURE_CONSEQUENCE)

    def add_files(self, record: StreamRecord, files: Sequence[Path], model: Path | None = None) -> None:
        """Uploads files, such as a report's, and a model to the run of an ended stream if that run was written."""
        store = self._stores.get(stream_id(record))
        if store is not None:
            self._connection.attempt(partial(store.log_files, files), _FAILURE_CONSEQUENCE)
        if store is not None and model is not None:
            self._connection.attempt(partial(store.log_model, model, None), _FAILURE_CONSEQUENCE)

    def _write(self, record: StreamRecord, *, live: bool) -> None:
        name = stream_id(record)
        # A store that failed is not reused, because its state of the run may be wrong.
        store = self._stores.pop(name, None) or open_store(self.uri, stream_owner(record))
        store.write(stream_run(record, live=live))
        self._stores[name] = store
