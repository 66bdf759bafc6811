"""The connection to a Ray cluster, or to a Ray instance that is started on this machine."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nbt.errors import NbtError, UsageError
from nbt.machine.cores import usable_cores
from nbt.tuning.engines.ray.cluster_resources import NodeResources, choose_trial_resources, fitting_trials
from nbt.tuning.engines.ray.connection_monitor import ConnectionMonitor, Endpoint
from nbt.tuning.engines.ray.options import CLIENT_PREFIX, RayOptions, check_ray_client_installed, check_ray_installed

_log = logging.getLogger("nbt")

RESPONSE_TIMEOUT_SECONDS = 15.0
_RECONNECT_TIMEOUT_VARIABLE = "RAY_gcs_rpc_server_reconnect_timeout_s"
# The raylet is on this machine and is never restarted; the actors end with it.
_RAYLET_TIMEOUT_SECONDS = 1.0
# Without its head, Ray's shutdown may hang until Ray ends this process. Error messages must be printed before that.
_DISCONNECTED_SHUTDOWN_SECONDS = 5.0
# The head starts a process per client, which imports Ray and connects.
_CLIENT_TIMEOUT_SECONDS = 90.0
_OBJECT_STORE_HEADROOM_BYTES = 256 << 20
# On a busy machine Ray's agents may not start within Ray's default of 15 s, and the start fails.
_START_TIMEOUT_MILLISECONDS = "120000"
# Ray's sockets are in its temporary folder; their paths may have 107 bytes on Linux and 103 on macOS.
_SOCKET_IN_TEMPORARY_FOLDER = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_MAX_SOCKET_PATH = 103
_SHORT_TEMPORARY_FOLDER = "/tmp"


class Cluster:
    """A connection to Ray.

    Args:
        nodes: Resources of the cluster's nodes at present.
        owned: Whether `close` ends the connection, and with it a Ray instance that was started for it.
        endpoints: Servers without which the connection is lost.

    Attributes:
        lost: Whether the connection monitor has found the connection to be lost.
    """

    def __init__(self, nodes: Sequence[NodeResources], *, owned: bool, endpoints: Sequence[Endpoint] = ()) -> None:
        self._alive_nodes, self._owned, self._endpoints = nodes, owned, endpoints
        self.lost = False

    @property
    def gpus(self) -> float:
        """Number of GPUs of all nodes."""
        return sum(node.gpus for node in self._alive_nodes)

    def resources(self, options: RayOptions, workers: int) -> dict[str, float]:
        """Returns the resources per trial; see `nbt.tuning.engines.ray.cluster_resources.choose_trial_resources`."""
        return choose_trial_resources(self._alive_nodes, options, workers)

    def fitting_trials(self, options: RayOptions) -> int:
        """Returns the number of trials; see `nbt.tuning.engines.ray.cluster_resources.fitting_trials`."""
        return fitting_trials(self._alive_nodes, options)

    def put(self, value: Any) -> Any:
        """Stores an object in Ray's object store; returns the reference that keeps it there."""
        import ray

        return ray.put(value)

    def alive(self) -> bool:
        """Returns whether Ray still responds."""
        import ray

        return ray.is_initialized() and _call_with_timeout(ray.nodes, RESPONSE_TIMEOUT_SECONDS) is not None

    def start_connection_monitor(self, on_lost: Callable[[str], None]) -> ConnectionMonitor:
        """Starts to monitor the servers of the connection; `on_lost` receives the reason when one is lost."""

        def record_loss(reason: str) -> None:
            self.lost = True
            on_lost(reason)

        return ConnectionMonitor(self._endpoints, record_loss)

    def close(self) -> None:
        """Ends the connection if it is owned. A cluster that nbt has not started keeps running."""
        import ray

        if not self._owned:
            return
        self._owned = False
        if self.lost:
            _call_with_timeout(ray.shutdown, _DISCONNECTED_SHUTDOWN_SECONDS)
        else:
            ray.shutdown()


def connect(options: RayOptions, *, object_bytes: int = 0) -> Cluster:
    """Connects to the cluster at the options' address, or starts a local Ray instance without one.

    If this process is already connected to Ray, that connection is used and left open at the end.

    Args:
        options: Options with the address of the cluster.
        object_bytes: Bytes that the object store of a local Ray instance must have room for.

    Raises:
        UsageError: Ray is missing or too old, or no cluster responds at the address.
        NbtError: Ray cannot be started on this machine.
    """
    check_ray_installed()
    check_ray_client_installed(options.address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    from nbt.tuning.engines.ray.tune_internals import redirect_daemon_output

    redirect_daemon_output(lambda line: _log.info("Ray: %s", line))
    if ray.is_initialized():
        return Cluster(_alive_nodes(), owned=False, endpoints=_endpoints(options.address))
    with _keep_sigterm_handler():
        if options.address is None:
            _start_local_ray(object_bytes)
        else:
            _connect_to(options.address)
    return Cluster(_alive_nodes(), owned=True, endpoints=_endpoints(options.address))


@contextlib.contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Keeps the handler of SIGTERM: Ray's own would exit even during an update of the supervisor's state."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _start_local_ray(object_bytes: int) -> None:
    import ray

    os.environ.setdefault("RAY_agent_register_timeout_ms", _START_TIMEOUT_MILLISECONDS)
    # A cluster that runs on this machine is used only if the user gives its address.
    environment = {name: os.environ.pop(name) for name in ("RAY_ADDRESS",) if name in os.environ}
    if not _sockets_fit(os.environ.get("TMPDIR", "")):
        os.environ.setdefault("RAY_TMPDIR", _SHORT_TEMPORARY_FOLDER)
    try:
        ray.init(
            address="local",
            num_cpus=usable_cores(),
            object_store_memory=object_bytes + _OBJECT_STORE_HEADROOM_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:
        raise NbtError(f"Ray could not be started on this machine: {' '.join(str(error).split())[:300]}") from error
    finally:
        os.environ.update(environment)


def _sockets_fit(temporary_folder: str) -> bool:
    """Returns whether Ray's sockets have a short enough path in a temporary folder."""
    return len(os.fsencode(temporary_folder + _SOCKET_IN_TEMPORARY_FOLDER)) <= _MAX_SOCKET_PATH


def _connect_to(address: str) -> None:
    import ray

    host = parse_host_port(address)
    if host is not None and not Endpoint("", *host, 0.0).is_reachable(RESPONSE_TIMEOUT_SECONDS / 3):
        raise _no_response_error(address, f"nothing listens on port {host[1]} of {host[0]}")
    timeout_seconds = RESPONSE_TIMEOUT_SECONDS
    if address.startswith(CLIENT_PREFIX):
        if not _call_with_timeout(lambda: _grpc_ready(address), RESPONSE_TIMEOUT_SECONDS):
            raise _no_response_error(address, f"no response within {RESPONSE_TIMEOUT_SECONDS:.0f} s")
        timeout_seconds = _CLIENT_TIMEOUT_SECONDS
    errors: list[BaseException] = []

    def join() -> bool:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except BaseException as error:
            errors.append(error)
        return True

    if _call_with_timeout(join, timeout_seconds) is None:
        raise _no_response_error(address, f"no response within {timeout_seconds:.0f} s")
    if errors:
        raise _no_response_error(address, " ".join(str(errors[0]).split())[:300]) from errors[0]


def _grpc_ready(address: str) -> bool:
    """Waits until a Ray Client server is ready; returns True.

    A server with TLS counts as ready, because only Ray can connect to it.
    """
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True
    grpc = importlib.import_module("grpc")
    with grpc.insecure_channel(address.removeprefix(CLIENT_PREFIX).rstrip("/")) as channel:
        grpc.channel_ready_future(channel).result(RESPONSE_TIMEOUT_SECONDS)
    return True


def _no_response_error(address: str, reason: str) -> UsageError:
    # Ray sends its token only with RAY_AUTH_MODE=token; a cluster that requires a token does not respond without it.
    token_hint = (
        "" if os.environ.get("RAY_AUTH_MODE") == "token" else "; if it requires a token, set RAY_AUTH_MODE=token"
    )
    return UsageError(
        f"--ray-address {address}: no Ray cluster responds ({reason}{token_hint}); start one with ray start --head, "
        "or omit --ray-address and nbt starts Ray on this machine"
    )


def parse_host_port(address: str) -> tuple[str, int] | None:
    """Returns host and port of an address; None for "auto"."""
    text = address.removeprefix(CLIENT_PREFIX).rstrip("/")
    host, _, port = text.rpartition(":")
    if not host:
        host, port = text, "10001" if address.startswith(CLIENT_PREFIX) else "6379"
    return None if address == "auto" else (host.strip("[]"), int(port))


def _call_with_timeout(call: Callable[[], Any], seconds: float) -> Any:
    """Returns the result of a call; None if it raises or takes longer than `seconds` (Ray itself waits for minutes)."""
    results: list[Any] = []

    def run() -> None:
        with contextlib.suppress(Exception):
            results.append(call())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else None


def _endpoints(address: str | None) -> list[Endpoint]:
    """Returns the endpoints of the head and of the local raylet, which connects this process to all others."""
    import ray

    from nbt.tuning.engines.ray.tune_internals import is_ray_client

    # After its own timeout, Ray ends this process without a message; half of it leaves time for one.
    timeout_seconds = float(os.environ.get(_RECONNECT_TIMEOUT_VARIABLE) or 60.0) / 2
    if is_ray_client():
        host = None if address is None else parse_host_port(address)
        return [] if host is None else [Endpoint("the head of the Ray cluster", *host, timeout_seconds)]
    context = ray.get_runtime_context()
    head, _, port = context.gcs_address.rpartition(":")
    local_nodes = [node for node in ray.nodes() if node["NodeID"] == context.get_node_id()]  # type: ignore[no-untyped-call]
    return [
        Endpoint("the head of the Ray cluster", head.strip("[]"), int(port), timeout_seconds),
        *(
            Endpoint(
                "the Ray process of this machine",
                node["NodeManagerAddress"],
                int(node["NodeManagerPort"]),
                _RAYLET_TIMEOUT_SECONDS,
            )
            for node in local_nodes
        ),
    ]


def _alive_nodes() -> list[NodeResources]:
    import ray

    return [
        NodeResources(
            str(node.get("NodeManagerHostname") or node["NodeManagerAddress"]),
            float(resources.get("CPU", 0.0)),
            float(resources.get("GPU", 0.0)),
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
        for resources in (node["Resources"],)
    ]
