from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from nbt.doctor import services
from nbt.doctor.diagnosis import Diagnosis
from nbt.doctor.services import check_services


@pytest.fixture(autouse=True)
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "_RAY_CLUSTER_FILE", tmp_path / "no-cluster")


def by_subject(
    storage: str | None = None, tracking_uri: str | None = None, ray_address: str | None = None
) -> dict[str, Diagnosis]:
    results = check_services(storage, tracking_uri, ray_address, timeout=2.0)
    return {result.subject: result for result in results}


class Server:
    """An HTTP server on this machine that answers every request with one status."""

    def __init__(self, status: int) -> None:
        self.paths = paths = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                paths.append(self.path)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *unused: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    running = Server(getattr(request, "param", 200))
    yield running
    running.close()


def test_stores_that_do_not_exist_yet_are_fine(tmp_path: Path) -> None:
    results = by_subject()
    assert {result.status for result in results.values()} == {"ok"}
    assert results["study store"].message == f"{tmp_path}/.nbt/studies.db, to be created"
    assert results["tracking"].message == f"{tmp_path}/.nbt/mlflow.db, to be created"
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_studies(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s.db") as database:
        database.execute("CREATE TABLE studies (name TEXT)")
        database.execute("INSERT INTO studies VALUES ('a'), ('b')")
    assert by_subject(storage="sqlite:///s.db")["study store"].message == "s.db, 2 studies"


def test_a_damaged_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"no database at all" * 100)
    result = by_subject(storage="sqlite:///s.db")["study store"]
    assert result.status == "problem" and "not a database" in result.message


def test_a_server_that_answers(server: Server) -> None:
    results = by_subject(tracking_uri=f"http://me:secret@{server.address}", ray_address=server.address)
    assert results["tracking"].status == results["Ray"].status == "ok"
    assert server.paths == ["/health"]


@pytest.mark.parametrize(("server", "status"), [(404, "problem"), (401, "ok")], indirect=["server"])
def test_a_server_that_is_not_mlflow(server: Server, status: str) -> None:
    assert by_subject(tracking_uri=f"http://{server.address}")["tracking"].status == status


def test_dead_servers_and_passwords(server: Server) -> None:
    server.close()
    database = f"postgresql+psycopg://me:secret@{server.address}/studies"
    results = by_subject(database, f"http://me:secret@{server.address}", f"ray://{server.address}")
    assert [results[name].status for name in ("study store", "tracking", "Ray")] == ["problem", "warning", "warning"]
    assert all("cannot be reached (" in result.message and result.advice for result in results.values())
    assert "secret" not in str(results)


@pytest.mark.parametrize("uri", ["ftp://me:secret@host", "http://", "s.db"])
def test_malformed_uris_are_problems(uri: str) -> None:
    results = by_subject(tracking_uri=uri, storage=uri)
    assert results["tracking"].status == "problem"
    assert results["study store"].status == "problem" or uri.startswith("http")
    assert "secret" not in str(results)
