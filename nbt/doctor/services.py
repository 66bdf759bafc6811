"""Stores and servers: the studies, MLflow and Ray."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from nbt.doctor.diagnosis import OK, PROBLEM, WARNING, Diagnosis
from nbt.errors import UsageError
from nbt.tracking.uris import PORTS, SERVERS, default_uri, resolve_uri, sqlite_file
from nbt.uris import redact_uri

TIMEOUT = 3.0
"""Longest wait for an answer in seconds."""

TRACKING = "tracking"
_RAY_PORT = 6379
_RAY_CLUSTER_FILE = Path("/tmp/ray/ray_current_cluster")


def check_services(
    storage: str | None, tracking_uri: str | None, ray_address: str | None, *, timeout: float = TIMEOUT
) -> Iterator[Diagnosis]:
    """Yields whether study store, tracking store and Ray cluster can be reached.

    Args:
        storage: URL of the study store; `.nbt/studies.db` when None.
        tracking_uri: URI of the tracking store; `.nbt/mlflow.db` when None.
        ray_address: Address of a Ray cluster; that of `RAY_ADDRESS` or of a Ray on this machine when None.
        timeout: Longest wait for an answer in seconds.
    """
    default = default_uri().replace("mlflow.db", "studies.db")
    yield _check_store("study store", storage or default, "studies", "--storage", timeout)
    try:
        resolved = resolve_uri(tracking_uri)
    except UsageError as error:
        yield Diagnosis(TRACKING, PROBLEM, str(error), "correct --tracking-uri")
    else:
        yield _check_store(TRACKING, resolved, "experiments", "--tracking-uri", timeout)
    yield _check_ray(ray_address or os.environ.get("RAY_ADDRESS"), timeout)


def _check_store(subject: str, uri: str, table: str, option: str, timeout: float) -> Diagnosis:
    parts, shown = urlsplit(uri), redact_uri(uri)
    scheme = parts.scheme.split("+")[0]
    file = sqlite_file(uri)
    if file is not None:
        return _check_sqlite(subject, file, table, option)
    if scheme in SERVERS:
        return _check_http(subject, uri, option, timeout)
    if scheme not in PORTS or not parts.hostname:
        return Diagnosis(subject, PROBLEM, f"{shown} is no URL of a database", f"correct {option}")
    error = connection_error(parts.hostname, parts.port or PORTS[scheme], timeout)
    if error:
        return _unreachable(subject, shown, error, option)
    return Diagnosis(subject, OK, f"{shown} accepts connections; the login was not tried")


def _check_sqlite(subject: str, file: Path, table: str, option: str) -> Diagnosis:
    if not file.exists():
        return Diagnosis(subject, OK, f"{file}, to be created")
    try:
        # The URI of a file must not contain "?" or "#".
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=TIMEOUT)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            count = database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] if table in tables else 0
    except sqlite3.Error as error:
        return Diagnosis(subject, PROBLEM, f"{file} cannot be read ({error})", f"move it away, or correct {option}")
    return Diagnosis(subject, OK, f"{file}, {count} {table}")


def _check_http(subject: str, uri: str, option: str, timeout: float) -> Diagnosis:
    shown = redact_uri(uri)
    parts = urlsplit(uri)
    url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}/health"
    try:
        with urlopen(url, timeout=timeout):
            return Diagnosis(subject, OK, f"{shown} answers")
    except HTTPError as error:
        if error.code in (401, 403):  # a server with passwords, which the check does not send
            return Diagnosis(subject, OK, f"{shown} answers and asks for a login")
        advice = f"correct {option}: the address of an MLflow server answers /health"
        return Diagnosis(subject, PROBLEM, f"{shown} answers with {error.code} {error.reason}", advice)
    except (OSError, ValueError) as error:
        return _unreachable(subject, shown, str(error.reason if isinstance(error, URLError) else error), option)


def _unreachable(subject: str, shown: str, error: str, option: str) -> Diagnosis:
    """Returns the diagnosis of a store that does not answer; a search works without that of MLflow."""
    message, advice = f"{shown} cannot be reached ({error})", f"start the server, or correct {option}"
    if subject != TRACKING:
        return Diagnosis(subject, PROBLEM, message, advice)
    return Diagnosis(subject, WARNING, message, f"{advice}; a search works without it, and nbt sync writes its runs")


def _check_ray(address: str | None, timeout: float) -> Diagnosis:
    if address in (None, "", "auto", "local"):
        try:
            address = _RAY_CLUSTER_FILE.read_text().strip() if address != "local" else ""
        except OSError:
            address = ""
    if not address:
        return Diagnosis("Ray", OK, "no cluster; --engine ray starts one on this machine")
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        host, port = parts.hostname or "", parts.port or _RAY_PORT
    except ValueError as error:
        return Diagnosis("Ray", PROBLEM, f"{redact_uri(address)} is no address ({error})", "correct --ray-address")
    error_text = connection_error(host, port, timeout)
    if error_text:
        advice = "start the cluster, correct --ray-address or RAY_ADDRESS, or use --engine local"
        return Diagnosis("Ray", WARNING, f"{redact_uri(address)} cannot be reached ({error_text})", advice)
    return Diagnosis("Ray", OK, f"a cluster accepts connections at {redact_uri(address)}")


def connection_error(host: str, port: int, timeout: float) -> str:
    """Returns why no connection to a server can be made; "" if it can.

    Args:
        host: Name or address of its machine.
        port: Its port.
        timeout: Longest wait for an answer in seconds.
    """
    try:
        with socket.create_connection((host, port), timeout=timeout):
            return ""
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
