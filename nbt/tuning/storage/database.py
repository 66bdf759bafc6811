"""The database of a storage: its URL, its connections, and readable error messages."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from sqlalchemy.engine import URL, make_url

from nbt.errors import NbtError, UsageError, nearest
from nbt.paths import check_writable_file
from nbt.tuning.storage.trial_tables import check_schema, create_tables
from nbt.uris import redact_uri

_BUSY_TIMEOUT_SECONDS = 30.0
_RETRY_SECONDS = 0.05
# What SQLite says about damaged files, and the remedy.
_DAMAGES = ("not a database", "malformed", "no such table", "no such column")
_REPLACE = "move the file away or give another one with --storage"
_BACKENDS = ("sqlite", "postgresql", "mysql", "mariadb", "mssql", "oracle")
# Without the binary distribution, psycopg needs PostgreSQL's library to be installed.
_DRIVER_PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}


def resolve_storage(url: str | None, folder: Path | None = None) -> str:
    """Returns the absolute URL of the storage; `<folder>/.nbt/studies.db` by default.

    Args:
        url: An SQLAlchemy URL; None for the default.
        folder: Base of relative paths; the working directory by default.

    Raises:
        UsageError: The URL is invalid, names no file, or its database driver is not installed.
    """
    base = Path.cwd() if folder is None else folder.resolve()
    if url is None:
        return f"sqlite:///{base / '.nbt' / 'studies.db'}"
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite":
        return url
    if parsed.database in (None, "", ":memory:") or str(parsed.database).startswith("file:"):
        raise UsageError(f"storage {url}: studies need a database file, e.g. sqlite:///studies.db")
    return parsed.set(database=str(base / str(parsed.database))).render_as_string(hide_password=False)


def sqlite_file(url: str) -> Path | None:
    """Returns the file of an SQLite URL; None for a database on a server."""
    parsed = make_url(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None


def check_writable_storage(url: str | None) -> None:
    """Checks that the folder of an SQLite file can be written, before anything is done that is to be stored.

    Args:
        url: URL of the storage, as for `resolve_storage`.

    Raises:
        UsageError: A file is in the way, the folder is not writable, or the URL is invalid.
    """
    file = sqlite_file(resolve_storage(url))
    if file is not None:
        check_writable_file("--storage", file)


def check_separate_databases(url: str | None, tracking_uri: str) -> None:
    """Checks that MLflow and the studies use separate databases.

    Both keep their schema version in a table of the same name.

    Args:
        url: URL of the storage, as for `resolve_storage`.
        tracking_uri: Resolved tracking URI of MLflow.

    Raises:
        UsageError: Both use the same database, or the URL of the storage is invalid.
    """
    storage_url, tracking_url = make_url(resolve_storage(url)), make_url(tracking_uri)
    storage_database, tracking_database = (
        (parsed.get_backend_name(), parsed.host, parsed.port, parsed.database) for parsed in (storage_url, tracking_url)
    )
    if storage_database == tracking_database:
        raise UsageError(
            f"--tracking-uri: MLflow cannot share the database {storage_url.database} with the studies (--storage); "
            "give the URI of a separate database"
        )


def connect(url: str) -> optuna.storages.RDBStorage:
    """Opens the database and creates its file and tables if they are missing.

    SQLite uses WAL mode, so that reports can read while a search writes, and waits up to 30 seconds for locks of other
    processes. Committed transactions survive a crash of the process, but the last ones may be lost in a power failure.
    Several processes may open a new database at the same time.

    Raises:
        UsageError: The file is damaged or not a database, or was written by another version of nbt or Optuna.
        NbtError: The database is unavailable or locked.
    """
    file = sqlite_file(url)
    with convert_errors(url):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        # Optuna checks for missing tables and creates them one by one without a lock, so that processes can collide. An
        # SQLite transaction that started to read before another one wrote fails as locked without waiting.
        deadline = time.monotonic() + _BUSY_TIMEOUT_SECONDS
        while True:
            try:
                if file is not None:
                    with closing(_sqlite_connector(file)()) as connection:
                        connection.execute("PRAGMA journal_mode=WAL")
                storage = _open(url, create=True)
                create_tables(storage.engine)
                return storage
            except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.DatabaseError, sqlite3.Error) as error:
                if time.monotonic() > deadline or not _is_concurrent_creation(error):
                    raise
            time.sleep(_RETRY_SECONDS)


def connect_to_read(url: str) -> optuna.storages.RDBStorage | None:
    """Opens the database without changing it; returns None if it does not exist or contains no studies.

    Raises:
        UsageError: The file is damaged or not a database, or was written by another version of nbt or Optuna.
        NbtError: The database is unavailable or locked.
    """
    file = sqlite_file(url)
    if file is not None and not file.exists():
        return None
    with convert_errors(url):
        engine = sqlalchemy.create_engine(url, **_engine_options(url))
        try:
            if not sqlalchemy.inspect(engine).has_table("studies"):
                return None
        finally:
            engine.dispose()
        return _open(url, create=False)


def engine_to_read(url: str) -> sqlalchemy.Engine | None:
    """Returns an engine without open connections for tables of nbt; None if the file does not exist.

    It is created faster than a storage of Optuna, which checks its tables.
    """
    file = sqlite_file(url)
    if file is not None and not file.exists():
        return None
    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, **_engine_options(url))


def _open(url: str, *, create: bool) -> optuna.storages.RDBStorage:
    """Opens the storage and checks the versions of its tables."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # INFO logs every study that is opened
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=_engine_options(url), skip_table_creation=not create)
    except RuntimeError as error:  # the tables belong to another version of Optuna
        raise UsageError(f"{_display_url(url)}: {' '.join(str(error).split())}") from error
    try:
        check_schema(storage.engine, _display_url(url))
    except BaseException:
        close(storage)
        raise
    return storage


def _engine_options(url: str) -> dict[str, Any]:
    file = sqlite_file(url)
    return {"pool_pre_ping": True} if file is None else {"creator": _sqlite_connector(file)}


def close(storage: optuna.storages.RDBStorage) -> None:
    """Closes all connections of a storage."""
    storage.remove_session()
    storage.engine.dispose()


@contextmanager
def convert_errors(url: str) -> Iterator[None]:
    """Converts exceptions of the database to errors with a message of one line and, where one is known, a remedy.

    Raises:
        UsageError: The file is damaged or not a database.
        NbtError: The database is unavailable, locked, full or read-only.
    """
    try:
        yield
    except json.JSONDecodeError as error:
        raise UsageError(f"{_display_url(url)}: a stored value is damaged ({error}); {_REPLACE}") from error
    except OSError as error:
        raise NbtError(f"{_display_url(url)}: {error.strerror or error}") from error
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error) as error:
        text = " ".join(str(_root_cause(error)).split())[:300]
        message = f"{_display_url(url)}: {text}"
        if isinstance(_root_cause(error), json.JSONDecodeError) or any(damage in text for damage in _DAMAGES):
            raise UsageError(f"{message}: {_REPLACE}") from error
        if "locked" in text:
            message += ": another program is writing to it; close that program and run the command again"
        raise NbtError(message) from error


def _sqlite_connector(file: Path) -> Callable[[], sqlite3.Connection]:
    def open_connection() -> sqlite3.Connection:
        connection = sqlite3.connect(file, timeout=_BUSY_TIMEOUT_SECONDS, check_same_thread=False)
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    return open_connection


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed.get_dialect().import_dbapi()
    except sqlalchemy.exc.NoSuchModuleError as error:
        kind = url.split(":", 1)[0]
        raise UsageError(
            f"storage {_display_url(url)}: unknown database {kind!r}; {nearest(kind, _BACKENDS)}"
        ) from error
    except ModuleNotFoundError as error:
        package = _DRIVER_PACKAGES.get(str(error.name), error.name)
        raise UsageError(
            f'storage {_display_url(url)}: requires the Python package {error.name}: pip install "{package}"'
        ) from error
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        raise UsageError(
            f"storage {redact_uri(url)!r} is not a database URL: give sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
        ) from error
    return parsed


def _display_url(url: str) -> str:
    """Returns the URL without its password; for SQLite, the path of the file."""
    try:
        file = sqlite_file(url)
        return make_url(url).render_as_string(hide_password=True) if file is None else f"study database {file}"
    except sqlalchemy.exc.SQLAlchemyError:
        return url.split("@")[-1]


def _is_concurrent_creation(error: BaseException) -> bool:
    """Whether another process created the same table or row, or is writing at the moment."""
    text = str(_root_cause(error)).lower()
    return any(phrase in text for phrase in ("already exists", "unique constraint", "duplicate", "locked"))


def _root_cause(error: BaseException) -> BaseException:
    while (inner := getattr(error, "orig", None) or error.__cause__) is not None:
        error = inner
    return error
