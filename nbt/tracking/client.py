"""Opening of MLflow stores, with connection errors within seconds instead of MLflow's minutes."""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
import urllib.error
import urllib.request
import uuid
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from urllib.parse import urlsplit

import filelock

from nbt.tracking.run_store import RunOwner, RunStore
from nbt.tracking.uris import PORTS, SERVERS, sqlite_file

_PROBE_SECONDS = 3.0
_LOCK_SECONDS = 120.0
# By default, MLflow waits minutes for an unreachable server at every call, and prints to stdout, which is for results.
MLFLOW_DEFAULTS = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# Errors of the store are reported in one line by `nbt.tracking.connection`; these libraries print tracebacks as well.
_SILENT_LOGGERS = ("mlflow", "alembic", "sqlalchemy.pool", "urllib3.connectionpool")


def open_store(uri: str, owner: RunOwner) -> RunStore:
    """Returns the owner's runs in a store; a new SQLite file is created.

    Raises:
        Exception: Any error of the connection or of MLflow; a server that does not respond is tried once.
    """
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    if urlsplit(uri).scheme in SERVERS:
        _probe_server(uri)
    else:
        _probe_database(uri)
    from mlflow.tracking import MlflowClient

    for logger in _SILENT_LOGGERS:
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    file = sqlite_file(uri)
    with _creation_lock(file):
        if file is not None and not (file.exists() and file.stat().st_size):
            _create_sqlite_file(file)
        return RunStore(MlflowClient(tracking_uri=uri), uri, owner)


def _creation_lock(file: Path | None) -> AbstractContextManager[object]:
    """Returns a lock of an SQLite file: MLflow fails if two processes create its tables at the same time."""
    if file is None:
        return nullcontext()
    return filelock.FileLock(file.with_name(f"{file.name}.lock"), timeout=_LOCK_SECONDS)


def _create_sqlite_file(file: Path) -> None:
    """Creates an SQLite file with MLflow's tables under another name, and renames it.

    MLflow creates its tables in many steps and cannot continue where a process was killed in between: the file would be
    unusable. Each attempt has a name of its own, because MLflow keeps connections by name, also those of a failed one.
    """
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    prefix = f"{file.name}.creating-"
    for path in file.parent.iterdir():
        if path.name.startswith(prefix):  # left by an attempt that failed or was killed
            path.unlink()
    new = file.with_name(f"{prefix}{uuid.uuid4().hex}")
    store = SqlAlchemyStore(f"sqlite:///{new}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)  # type: ignore[no-untyped-call]
    store.engine.dispose()
    new.replace(file)


def _probe_server(uri: str) -> None:
    """Checks that a server responds.

    Raises:
        OSError: There was no response within `_PROBE_SECONDS`.
    """
    address = re.sub(r"://[^/@]*@", "://", uri).rstrip("/") + "/health"
    try:
        with urllib.request.urlopen(address, timeout=_PROBE_SECONDS):
            pass
    except urllib.error.HTTPError:
        pass  # the server responds; MLflow's own calls report missing permissions
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # requests may accept certificates that urllib does not
            raise


def _probe_database(uri: str) -> None:
    """Connects to a database once, because MLflow itself retries for two minutes.

    Raises:
        Exception: The connection failed, or the driver of the database is missing.
    """
    import sqlalchemy

    parts, file = urlsplit(uri), sqlite_file(uri)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(uri)
    try:
        if parts.hostname:
            port = parts.port or PORTS[parts.scheme.split("+")[0]]
            socket.create_connection((parts.hostname, port), timeout=_PROBE_SECONDS).close()
        sqlalchemy.inspect(engine)
    finally:
        engine.dispose()
