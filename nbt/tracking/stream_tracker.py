"""MLflow for streams of tasks: one run a stream, with the accuracy of every task after each as curves.

The file that keeps a stream is the truth and MLflow a projection of it, as for studies (`nbt.tracking`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nbt.tracking import RunOwner, RunStore, TrackingConnection, may_have_runs, open_store, redact_uri, resolve_uri
from nbt.tracking.stream_runs import STREAM_KEY, experiment_name, stream_id, stream_run
from nbt.tuning.storage.stream_record import StreamRecord

_FAILURE_CONSEQUENCE = (
    "the stream goes on, and its run is written with the next task, or when the same command is given again"
)


class StreamTracker:
    """Writes streams to MLflow while they run; whatever MLflow does, they go on.

    Args:
        uri: As for `nbt.tracking.resolve_uri`.
        contact: Makes who asks again where MLflow did not answer; for tests.

    Raises:
        UsageError: The URI is malformed.
    """

    def __init__(
        self, uri: str | None = None, *, contact: Callable[[str], TrackingConnection] = TrackingConnection
    ) -> None:
        self.uri = resolve_uri(uri)
        self._contact = contact(self.uri)
        self._stores: dict[str, RunStore] = {}
        self._empty = not may_have_runs(self.uri)

    def mark(self, record: StreamRecord) -> str:
        """Returns what says that MLflow has been told of a stream that ended: where, and a hash of what."""
        return f"{redact_uri(self.uri)} {stream_run(record).content}"

    def is_logged(self, record: StreamRecord, mark: str) -> bool:
        """Returns whether a mark is of this store and stream, and the store has not been removed since."""
        return not self._empty and mark == self.mark(record)

    def log_progress(self, record: StreamRecord) -> None:
        """Writes a stream that runs, as far as it is."""
        if self._contact.due:
            self._contact.attempt(partial(self._write, record, live=True), _FAILURE_CONSEQUENCE)

    def stream_ended(self, record: StreamRecord) -> bool:
        """Writes a stream that is finished or was stopped; returns whether it could be written."""
        self._contact.retry_now()
        return self._contact.attempt(partial(self._write, record, live=False), _FAILURE_CONSEQUENCE)

    def add_files(self, record: StreamRecord, files: Sequence[Path]) -> None:
        """Adds files, such as a report's, to the run of a stream that ended; not where it could not be written."""
        store = self._stores.get(stream_id(record))
        if store is not None:
            self._contact.attempt(partial(store.log_files, files), _FAILURE_CONSEQUENCE)

    def _write(self, record: StreamRecord, *, live: bool) -> None:
        name = stream_id(record)
        # A store that failed is not used again: what it knows of the run may be wrong.
        store = self._stores.pop(name, None) or open_store(self.uri, _owner(record))
        store.write(stream_run(record, live=live))
        self._stores[name] = store


def _owner(record: StreamRecord) -> RunOwner:
    return RunOwner(
        id=stream_id(record),
        experiment=experiment_name(record),
        key=STREAM_KEY,
        dataset=record.config.dataset,
        digest=record.config.data_hash,
        data_dir=record.config.data_dir,
        facts=record.facts,
    )
