"""MLflow's pages on this machine: its server in this process, and pages that open for model training.

MLflow chooses between its GenAI and its model-training pages by a value that each browser stores, and not by the
experiment. The start page therefore stores that value, and the columns of the runs, unless the user has chosen others.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nbt.errors import UsageError
from nbt.tracking.client import MLFLOW_DEFAULTS
from nbt.tracking.uris import SERVERS, resolve_uri, sqlite_file
from nbt.uris import redact_uri

HOST = "127.0.0.1"
_HOSTS = (HOST, "localhost", "::1")
_SHUTDOWN_SECONDS = 1
_COLUMNS = (
    *("attributes.`Models`", "metrics.`test_accuracy`", "metrics.`test_baseline_accuracy`"),
    *("metrics.`final_val_accuracy`", "metrics.`optimism`", "metrics.`value`", "tags.`state`"),
)
_SCRIPT = (
    "<script>for (const [key, value] of Object.entries(%s)) "
    "if (localStorage.getItem(key) === null) localStorage.setItem(key, value)</script>"
)


def check_pages(uri: str | None) -> str:
    """Returns the URI of a store whose pages can be served here.

    Args:
        uri: See `resolve_uri`.

    Raises:
        UsageError: The URI is that of a server, which has its own pages, or of a missing SQLite file.
    """
    uri = resolve_uri(uri)
    if urlsplit(uri).scheme in SERVERS:
        raise UsageError(f"{redact_uri(uri)} is a server with its own pages: open it in a browser")
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        raise UsageError(f"{file}: no runs have been written there yet; nbt search writes them")
    return uri


def bind_port(port: int) -> socket.socket:
    """Returns a socket that is bound to a local port.

    Raises:
        UsageError: The port is in use, or it may not be used.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        reason = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise UsageError(f"--port {port} cannot be used ({reason}); choose another port") from error
    return listener


def serve_pages(uri: str, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serves MLflow's pages until the process is interrupted.

    Args:
        uri: See `check_pages`.
        listener: See `bind_port`.
        ready: Called once, when the pages answer.

    Raises:
        KeyboardInterrupt: The user pressed Ctrl-C; the server has stopped.
    """
    os.environ.update({"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri})
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    import uvicorn
    from mlflow.server import app
    from mlflow.server.constants import BACKEND_STORE_URI_ENV_VAR

    os.environ[BACKEND_STORE_URI_ENV_VAR] = uri
    with warnings.catch_warnings(action="ignore"):
        from mlflow.server.fastapi_app import app as mlflow_app

    start_page = Path(str(app.static_folder)) / "index.html"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

    async def pages(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not is_local_host(dict(scope["headers"]).get(b"host", b"").decode("latin-1")):
            await _respond(send, 403, f"open http://{HOST}, or forward the port with ssh")
        elif scope["type"] == "http" and scope["path"] == "/":
            page = with_defaults(start_page.read_text(encoding="utf-8"), stored_defaults(_experiments(uri)))
            await _respond(send, 200, page)
        else:
            await mlflow_app(scope, receive, send)

    config = uvicorn.Config(pages, log_level="error", timeout_graceful_shutdown=_SHUTDOWN_SECONDS, lifespan="off")
    Server(config).run(sockets=[listener])


def is_local_host(host: str) -> bool:
    """Returns whether the Host header of a request names this machine.

    A page of another server whose name was made to mean 127.0.0.1 (DNS rebinding) has the name of that server.
    """
    try:
        return urlsplit(f"//{host}").hostname in _HOSTS
    except ValueError:
        return False


async def _respond(send: Any, status: int, page: str) -> None:
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": page.encode()})


def stored_defaults(experiments: Mapping[str, str]) -> dict[str, str]:
    """Returns what a browser stores before its first visit: local storage key -> value.

    Args:
        experiments: Identifier -> name of the experiments.
    """
    columns = json.dumps({"selectedColumns": _COLUMNS})
    return {
        "mlflow.workflowType_v1": json.dumps("machine_learning"),
        "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": json.dumps(True),
        **{
            f"MLflowLocalStorage-1.1-ExperimentPage-{json.dumps([identifier])}-ReactComponentState": columns
            for identifier, name in experiments.items()
            if name.startswith("nbt ")
        },
    }


def with_defaults(page: str, stored: Mapping[str, str]) -> str:
    """Returns MLflow's start page with a script that stores values unless the browser has others."""
    script = _SCRIPT % json.dumps(stored).replace("<", "\\u003c")
    return page.replace("<head>", "<head>" + script, 1)


def _experiments(uri: str) -> dict[str, str]:
    from mlflow.tracking import MlflowClient

    return {item.experiment_id: item.name for item in MlflowClient(tracking_uri=uri).search_experiments()}
