"""Tracking URIs: defaults, validation, and the location of artifacts."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from nbt.errors import UsageError, nearest
from nbt.uris import redact_uri

SERVERS = ("http", "https")
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
DATABASES = ("sqlite", *PORTS)


def default_uri(folder: str | Path = ".nbt") -> str:
    """Returns the URI of the default SQLite file, `mlflow.db` in `folder`, as an absolute path."""
    return f"sqlite:///{Path(folder).absolute() / 'mlflow.db'}"


def resolve_uri(uri: str | None) -> str:
    """Returns a tracking URI that does not depend on the working directory, without opening the store.

    Args:
        uri: A server (`http://`, `https://`), a database (`sqlite:///FILE`, `postgresql://...`), or None for
            `default_uri`. The path of an SQLite file is made absolute.

    Raises:
        UsageError: The URI is malformed or of another kind; the message contains no password.
    """
    if uri is None:
        return default_uri()
    try:
        parts = urlsplit(uri)
        scheme, host = parts.scheme.split("+")[0], parts.hostname
        _ = parts.port  # raises ValueError if it is not a port number
    except ValueError as error:
        raise UsageError(f"tracking URI {redact_uri(uri)!r} is malformed ({error})") from error
    if scheme not in SERVERS + DATABASES:
        remedy = nearest(scheme, SERVERS + DATABASES) if "://" in uri else "an SQLite file is written sqlite:///FILE"
        raise UsageError(f"tracking URI {redact_uri(uri)!r} is neither a server nor a database; {remedy}")
    if scheme in SERVERS and not host:
        raise UsageError(f"tracking URI {redact_uri(uri)!r} names no host; expected e.g. http://127.0.0.1:5000")
    return _absolute_sqlite(uri) if scheme == "sqlite" else uri


def _absolute_sqlite(uri: str) -> str:
    prefix, slashes, path = uri.partition(":///")
    if not slashes or not path or path.startswith(":memory:"):
        raise UsageError(f"tracking URI {uri!r} names no file; expected e.g. sqlite:///mlflow.db")
    return f"{prefix}:///{Path(path).absolute()}"


def sqlite_file(uri: str) -> Path | None:
    """Returns the file of an SQLite URI; None for other URIs."""
    return Path(uri.partition(":///")[2].partition("?")[0]) if uri.startswith("sqlite") else None


def may_have_runs(uri: str) -> bool:
    """Returns False for a missing SQLite file; for other stores only a connection would tell, so True."""
    file = sqlite_file(uri)
    return file is None or file.is_file()


def artifact_location(uri: str) -> str | None:
    """Returns the URI of the artifacts: next to an SQLite file, else under `.nbt/`; None for a server."""
    if urlsplit(uri).scheme in SERVERS:
        return None
    file = sqlite_file(uri)
    return ((Path(".nbt").absolute() if file is None else file.parent) / "mlartifacts").as_uri()
