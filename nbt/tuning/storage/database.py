"""The database under a storage: which URL, how it is opened, and what its errors mean to people."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from sqlalchemy.engine import URL, make_url

from nbt.errors import NbtError, UsageError, nearest

_BUSY_TIMEOUT_SECONDS = 30.0
_RETRY_SECONDS = 0.05
_BACKENDS = ("sqlite", "postgresql", "mysql", "mariadb", "mssql", "oracle")
# Without its binary part psycopg needs PostgreSQL's own library on the machine.
_DRIVER_PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}


def resolve_storage(url: str | None, folder: Path | None = None) -> str:
    """Returns the absolute URL of the storage: `<folder>/.nbt/studies.db` where none is given.

    Args:
        url: An SQLAlchemy URL, or None.
        folder: What relative paths start from; the working directory by default.

    Raises:
        UsageError: It is not the URL of a database that could be opened here.
    """
    base = Path.cwd() if folder is None else folder.resolve()
    if url is None:
        return f"sqlite:///{base / '.nbt' / 'studies.db'}"
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite":
        return url
    if parsed.database in (None, "", ":memory:") or str(parsed.database).startswith("file:"):
        raise UsageError(f"storage {url}: a study needs a database file, e.g. sqlite:///studies.db")
    return parsed.set(database=str(base / str(parsed.database))).render_as_string(hide_password=False)


def sqlite_file(url: str) -> Path | None:
    """Returns the file of a SQLite URL, None for a database on a server."""
    parsed = make_url(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None


def check_separate_databases(url: str | None, tracking_uri: str) -> None:
    """Checks that MLflow is not to write into the database of the studies: each would take the other's for damaged.

    Args:
        url: Of the storage, as for `resolve_storage`.
        tracking_uri: Of MLflow, resolved.

    Raises:
        UsageError: It is, or the storage is none.
    """
    storage_url, tracking_url = make_url(resolve_storage(url)), make_url(tracking_uri)
    one, other = (
        (found.get_backend_name(), found.host, found.port, found.database) for found in (storage_url, tracking_url)
    )
    if one == other:
        raise UsageError(
            f"--tracking-uri: MLflow cannot share the database {storage_url.database} with the studies (--storage); "
            "give it one of its own on the same server"
        )


def connect(url: str) -> optuna.storages.RDBStorage:
    """Opens the database, making file and tables where they are missing.

    SQLite runs in WAL mode, so that reports read while a search writes, and waits for half a minute where another
    program has it locked. A transaction survives the end of the process; the last ones may be lost with the power.
    Programs that open a new database in the same moment make its tables together.

    Raises:
        NbtError: It is away, locked, damaged, or of another version of optuna.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # at INFO it tells of every study that is opened
    file = sqlite_file(url)
    with convert_errors(url):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        options = {"pool_pre_ping": True} if file is None else {"creator": _sqlite_connector(file)}
        try:
            return _open_with_retries(url, options)
        except RuntimeError as error:
            raise NbtError(f"{_display_url(url)}: {' '.join(str(error).split())}") from error


def _open_with_retries(url: str, options: Mapping[str, Any]) -> optuna.storages.RDBStorage:
    """Opens the storage, again where another program is just making the tables that this one was about to make.

    Optuna looks what is missing and then makes it, table by table, with nothing that keeps others out in between. A
    SQLite transaction that began to read before another wrote is told that the database is locked, without waiting.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT_SECONDS
    while True:
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=dict(options))
        except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.DatabaseError, sqlite3.Error) as error:
            if time.monotonic() > deadline or not _is_concurrent_creation(error):
                raise
        time.sleep(_RETRY_SECONDS)


def close(storage: optuna.storages.RDBStorage) -> None:
    """Closes all connections."""
    storage.remove_session()
    storage.engine.dispose()


@contextmanager
def convert_errors(url: str) -> Iterator[None]:
    """Turns what a database raises into one line for people.

    Raises:
        NbtError: The database is away, locked, read-only or damaged.
    """
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error) as error:
        raise NbtError(f"{_display_url(url)}: {_error_message(error)}") from error
    except OSError as error:
        raise NbtError(f"{_display_url(url)}: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        raise NbtError(f"{_display_url(url)}: a stored value is damaged ({error})") from error


def _sqlite_connector(file: Path) -> Callable[[], sqlite3.Connection]:
    def open_connection() -> sqlite3.Connection:
        connection = sqlite3.connect(file, timeout=_BUSY_TIMEOUT_SECONDS, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
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
            f'storage {_display_url(url)}: needs the Python package {error.name}: pip install "{package}"'
        ) from error
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        raise UsageError(
            f"storage {url!r} is not a database URL: write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
        ) from error
    return parsed


def _display_url(url: str) -> str:
    """Returns the URL without its password, a SQLite database as its path."""
    try:
        file = sqlite_file(url)
        return make_url(url).render_as_string(hide_password=True) if file is None else f"study database {file}"
    except sqlalchemy.exc.SQLAlchemyError:
        return url.split("@")[-1]


def _is_concurrent_creation(error: BaseException) -> bool:
    """Whether a table, or a row in one, is there by now, or another program is just writing."""
    text = str(_root_cause(error)).lower()
    return any(words in text for words in ("already exists", "unique constraint", "duplicate", "locked"))


def _root_cause(error: BaseException) -> BaseException:
    while (inner := getattr(error, "orig", None) or error.__cause__) is not None:
        error = inner
    return error


def _error_message(error: BaseException) -> str:
    """Returns the innermost reason in one line, with a remedy where there is one."""
    error = _root_cause(error)
    text = " ".join(str(error).split())[:300]
    if "locked" in text:
        return f"{text}: another program has it open for writing; close that one and run this again"
    if "not a database" in text:
        return f"{text}: move it away or give another one with --storage"
    return text
