"""The connection to a Ray cluster: made, checked against what a trial needs, and given back."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nbt.errors import NbtError, UsageError
from nbt.tuning.engines.distributed.health_monitor import Endpoint, HealthMonitor
from nbt.tuning.engines.ray.cluster_resources import NodeResources, choose_trial_resources
from nbt.tuning.engines.ray.options import CLIENT_PREFIX, RayOptions, check_ray_client_installed, check_ray_installed
from nbt.tuning.engines.worker_process import usable_cores

__all__ = ["Cluster", "RayOptions", "connect"]

_log = logging.getLogger("nbt")

RESPONSE_TIMEOUT_SECONDS = 15.0
_RECONNECT_TIMEOUT_VARIABLE = "RAY_gcs_rpc_server_reconnect_timeout_s"
# It is on this machine, and nobody starts it again; the actors die with it.
_RAYLET_TIMEOUT_SECONDS = 1.0
# Without its head Ray may hang in its end until it ends this process; what there is to say must be said before.
_DISCONNECTED_SHUTDOWN_SECONDS = 5.0
# The head starts a process for every client, which imports Ray and connects.
_CLIENT_TIMEOUT_SECONDS = 90.0
_OBJECT_STORE_HEADROOM_BYTES = 256 << 20
# On a busy machine Ray's helpers do not start within Ray's own 15 s, and the start fails.
_START_TIMEOUT_MILLISECONDS = "120000"


class Cluster:
    """A connection to Ray.

    Args:
        nodes: What the cluster has now.
        owned: Whether `close` ends the connection, and with it a Ray that was started for it.
        endpoints: What the connection needs.
    """

    def __init__(self, nodes: Sequence[NodeResources], *, owned: bool, endpoints: Sequence[Endpoint] = ()) -> None:
        self._alive_nodes, self._owned, self._endpoints = nodes, owned, endpoints
        self._lost = False

    @property
    def gpus(self) -> float:
        """GPUs of all nodes."""
        return sum(node.gpus for node in self._alive_nodes)

    def resources(self, options: RayOptions, workers: int) -> dict[str, float]:
        """Returns what a trial asks for; see `nbt.tuning.engines.ray.cluster_resources.choose_trial_resources`."""
        return choose_trial_resources(self._alive_nodes, options, workers)

    def put(self, thing: Any) -> Any:
        """Puts something into the object store; returns the reference that holds it there."""
        import ray

        return ray.put(thing)

    def alive(self) -> bool:
        """Tells whether Ray still is_reachable."""
        import ray

        return ray.is_initialized() and _call_with_timeout(ray.nodes, RESPONSE_TIMEOUT_SECONDS) is not None

    def watch(self, on_lost: Callable[[str], None]) -> HealthMonitor:
        """Watches what the connection needs; see `_endpoints`."""

        def note(why: str) -> None:
            self._lost = True
            on_lost(why)

        return HealthMonitor(self._endpoints, note)

    @property
    def lost(self) -> bool:
        """Whether a watch has found that the connection is gone."""
        return self._lost

    def close(self) -> None:
        """Ends the connection. A cluster that was there before goes on."""
        import ray

        if not self._owned:
            return
        self._owned = False
        if self._lost:
            _call_with_timeout(ray.shutdown, _DISCONNECTED_SHUTDOWN_SECONDS)
        else:
            ray.shutdown()


def connect(options: RayOptions, *, object_bytes: int = 0) -> Cluster:
    """Connects to the cluster that the options name, or starts a Ray on this machine where they name none.

    Where this process is connected already, that connection is used and left.

    Args:
        options: Which cluster.
        object_bytes: What a Ray of this machine needs room for in its object store.

    Raises:
        UsageError: Ray is missing or too old, or the address does not answer.
        NbtError: Ray cannot be started here.
    """
    check_ray_installed()
    check_ray_client_installed(options.address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    _log_daemon_output()
    if ray.is_initialized():
        return Cluster(_alive_nodes(), owned=False, endpoints=_endpoints(options.address))
    with _keep_sigterm_handler():
        if options.address is None:
            _start_local_ray(object_bytes)
        else:
            _connect_to(options.address)
    return Cluster(_alive_nodes(), owned=True, endpoints=_endpoints(options.address))


def _log_daemon_output() -> None:
    """Makes log records of what Ray prints of its daemons: it prints to stdout, whatever it is told, as of 2.60."""
    from ray._private import worker

    def log(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        for line in data["lines"]:
            _log.info("Ray: %s", line)

    worker.print_to_stdstream = log


@contextlib.contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Keeps what SIGTERM does here: Ray makes it an exit, also in the middle of a change to the supervisor."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _start_local_ray(object_bytes: int) -> None:
    import ray

    os.environ.setdefault("RAY_agent_register_timeout_ms", _START_TIMEOUT_MILLISECONDS)
    # A cluster that happens to run here is another's: it is joined where the user says so.
    environment = {name: os.environ.pop(name) for name in ("RAY_ADDRESS",) if name in os.environ}
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


def _connect_to(address: str) -> None:
    import ray

    host = parse_host_port(address)
    if host is not None and not Endpoint("", *host, 0.0).is_reachable(RESPONSE_TIMEOUT_SECONDS / 3):
        raise _no_answer_error(address, f"nothing listens on port {host[1]} of {host[0]}")
    timeout_seconds = RESPONSE_TIMEOUT_SECONDS
    if address.startswith(CLIENT_PREFIX):
        if not _call_with_timeout(lambda: _grpc_ready(address), RESPONSE_TIMEOUT_SECONDS):
            raise _no_answer_error(address, f"no answer within {RESPONSE_TIMEOUT_SECONDS:.0f} s")
        timeout_seconds = _CLIENT_TIMEOUT_SECONDS
    failed: list[BaseException] = []

    def join() -> bool:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except BaseException as error:
            failed.append(error)
        return True

    if _call_with_timeout(join, timeout_seconds) is None:
        raise _no_answer_error(address, f"no answer within {timeout_seconds:.0f} s")
    if failed:
        raise _no_answer_error(address, " ".join(str(failed[0]).split())[:300]) from failed[0]


def _grpc_ready(address: str) -> bool:
    """Waits until a server of Ray's client is ready to talk; of one with TLS, which only Ray knows to do, says yes."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True
    grpc = importlib.import_module("grpc")
    with grpc.insecure_channel(address.removeprefix(CLIENT_PREFIX).rstrip("/")) as channel:
        grpc.channel_ready_future(channel).result(RESPONSE_TIMEOUT_SECONDS)
    return True


def _no_answer_error(address: str, why: str) -> UsageError:
    # To an address Ray goes without its token unless it is told to, and a cluster with one does not answer then.
    token = "" if os.environ.get("RAY_AUTH_MODE") == "token" else "; where it wants a token, set RAY_AUTH_MODE=token"
    return UsageError(
        f"--ray-address {address}: no Ray cluster answers ({why}{token}); ray start --head starts one, and without "
        "--ray-address nbt starts a Ray of its own"
    )


def parse_host_port(address: str) -> tuple[str, int] | None:
    """Returns host and port of an address, None of "auto"."""
    text = address.removeprefix(CLIENT_PREFIX).rstrip("/")
    host, _, port = text.rpartition(":")
    if not host:
        host, port = text, "10001" if address.startswith(CLIENT_PREFIX) else "6379"
    return None if address == "auto" else (host.strip("[]"), int(port))


def _call_with_timeout(call: Any, seconds: float) -> Any:
    """Returns what a call returns, None where that takes too long: Ray itself waits for minutes."""
    found: list[Any] = []

    def run() -> None:
        with contextlib.suppress(Exception):
            found.append(call())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


def _endpoints(address: str | None) -> list[Endpoint]:
    """Returns where the head listens and, as it connects this process to all others, the raylet of this machine."""
    import ray

    # At the end of Ray's own timeout_seconds it ends this process without a word to anybody.
    timeout_seconds = float(os.environ.get(_RECONNECT_TIMEOUT_VARIABLE) or 60.0) / 2
    if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        host = None if address is None else parse_host_port(address)
        return [] if host is None else [Endpoint("the head of the Ray cluster", *host, timeout_seconds)]
    here = ray.get_runtime_context()
    head, _, port = here.gcs_address.rpartition(":")
    own = [found for found in ray.nodes() if found["NodeID"] == here.get_node_id()]  # type: ignore[no-untyped-call]
    return [
        Endpoint("the head of the Ray cluster", head.strip("[]"), int(port), timeout_seconds),
        *(
            Endpoint(
                "the Ray of this machine",
                found["NodeManagerAddress"],
                int(found["NodeManagerPort"]),
                _RAYLET_TIMEOUT_SECONDS,
            )
            for found in own
        ),
    ]


def _alive_nodes() -> list[NodeResources]:
    import ray

    return [
        NodeResources(
            str(found.get("NodeManagerHostname") or found["NodeManagerAddress"]),
            float(resources.get("CPU", 0.0)),
            float(resources.get("GPU", 0.0)),
        )
        for found in ray.nodes()  # type: ignore[no-untyped-call]
        if found["Alive"]
        for resources in (_as_mapping(found["Resources"]),)
    ]


def _as_mapping(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}
