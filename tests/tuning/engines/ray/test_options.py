"""Options of the Ray engine and resources per trial; no Ray is started."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.errors import UsageError
from nbt.tuning.engines.factory import EngineFactory, check_engine_options
from nbt.tuning.engines.ray import cluster as ray_cluster
from nbt.tuning.engines.ray.cluster import connect, parse_host_port
from nbt.tuning.engines.ray.cluster_resources import NodeResources, choose_trial_resources
from nbt.tuning.engines.ray.options import RayOptions, check_ray_installed

CPUS = [NodeResources("a", 4, 0), NodeResources("b", 8, 0)]
MIXED = [NodeResources("a", 4, 0), NodeResources("big", 16, 4)]


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "head:6379", "ray://head:10001", "[::1]:6379"])
def test_addresses(address: str) -> None:
    assert RayOptions(address).given_options() == ["--ray-address"]


@pytest.mark.parametrize("address", ["", "head", "http://head:1", "head:port", "head:70000", "ray://head", "a b:1"])
def test_invalid_addresses(address: str) -> None:
    with pytest.raises(UsageError, match="--ray-address"):
        RayOptions(address)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus_per_trial": -1}, "--gpus-per-trial -1: expected 0 ... 1"),
        ({"gpus_per_trial": 1.5}, "--gpus-per-trial 1.5: expected 0 ... 1"),
        ({"gpus_per_trial": 2}, "--gpus-per-trial 2: expected 0 ... 1, because a trial trains on one GPU, or auto"),
        ({"gpus_per_trial": float("nan")}, "--gpus-per-trial nan"),
        ({"cpus_per_trial": 0}, "cpus"),
    ],
)
def test_invalid_resources(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RayOptions(**options)


@pytest.mark.parametrize(
    ("nodes", "options", "workers", "expected"),
    [
        (CPUS, RayOptions(), 1, {"CPU": 8.0}),
        (CPUS, RayOptions(), 3, {"CPU": 4.0}),
        (CPUS, RayOptions(), 24, {"CPU": 0.5}),
        (CPUS, RayOptions(cpus_per_trial=2), 24, {"CPU": 2.0}),
        (MIXED, RayOptions(), 4, {"CPU": 4.0, "GPU": 1.0}),
        (MIXED, RayOptions(), 8, {"CPU": 2.0, "GPU": 0.5}),
        (MIXED, RayOptions(gpus_per_trial=0.25, cpus_per_trial=1), 8, {"CPU": 1.0, "GPU": 0.25}),
        (MIXED, RayOptions(gpus_per_trial=0), 20, {"CPU": 1.0}),
        ([NodeResources("a", 32, 4)], RayOptions(), 6, {"CPU": 5.0, "GPU": 0.5}),
        ([NodeResources("a", 32, 4)], RayOptions(), 9, {"CPU": 3.0, "GPU": 0.3333}),
        ([NodeResources("a", 8, 4), NodeResources("b", 8, 4)], RayOptions(), 5, {"CPU": 2.0, "GPU": 1.0}),
        ([NodeResources("a", 8, 4), NodeResources("b", 64, 4)], RayOptions(), 8, {"CPU": 2.0, "GPU": 1.0}),
        ([NodeResources("a", 3, 0), NodeResources("b", 3, 0)], RayOptions(), 3, {"CPU": 1.0}),
        ([NodeResources("a", 1, 0)], RayOptions(), 3, {"CPU": 0.33}),
        ([NodeResources("a", 8, 1)], RayOptions(gpus_per_trial="auto"), 4, {"CPU": 2.0, "GPU": 1.0}),
    ],
)
def test_resources_per_trial(
    nodes: list[NodeResources], options: RayOptions, workers: int, expected: dict[str, float]
) -> None:
    assert choose_trial_resources(nodes, options, workers) == expected


@given(
    nodes=st.lists(
        st.builds(NodeResources, st.just("n"), st.integers(1, 64), st.integers(0, 8)), min_size=1, max_size=5
    ),
    workers=st.integers(1, 40),
)
def test_all_workers_fit_if_possible(nodes: list[NodeResources], workers: int) -> None:
    """Counts independently: every trial is on one node and on one GPU of it."""
    resources = choose_trial_resources(nodes, RayOptions(), workers)
    gpu = resources.get("GPU", 0.0)
    hosts = [node for node in nodes if node.gpus or not gpu]
    capacity = sum(
        min(int(node.cpus / resources["CPU"] + 1e-9), int(node.gpus) * int(1 / gpu) if gpu else 10**6) for node in hosts
    )
    assert capacity >= min(workers, sum(int(node.gpus) for node in hosts) if gpu else workers)
    if resources["CPU"] > 1:
        wider = resources["CPU"] + 1
        fewer = sum(min(int(node.cpus / wider), int(node.gpus) * int(1 / gpu) if gpu else 10**6) for node in hosts)
        assert fewer < min(workers, capacity), "a trial could have more CPUs"


def test_warns_of_missing_capacity(caplog: pytest.LogCaptureFixture) -> None:
    choose_trial_resources([NodeResources("a", 4, 2)], RayOptions(cpus_per_trial=2), 2)
    assert not caplog.records
    choose_trial_resources([NodeResources("a", 4, 2)], RayOptions(cpus_per_trial=3), 2)
    assert "the cluster has room for 1 of 2 workers" in caplog.text


def test_more_than_any_node_has_is_rejected_with_a_list_of_nodes() -> None:
    with pytest.raises(UsageError, match=r"--gpus-per-trial 0\.5: no node has a GPU; the cluster has a: 4 CPU, 0 GPU"):
        choose_trial_resources([NodeResources("a", 4, 0), NodeResources("b", 8, 0)], RayOptions(gpus_per_trial=0.5), 1)
    with pytest.raises(UsageError, match="--cpus-per-trial 8: no suitable node"):
        choose_trial_resources(
            [NodeResources("a", 4, 1), NodeResources("b", 8, 0)], RayOptions(gpus_per_trial=1, cpus_per_trial=8), 1
        )


def test_a_head_without_cpus() -> None:
    with pytest.raises(
        UsageError, match="no node has CPUs for trials; start Ray workers first; the cluster has head: 0 CPU"
    ):
        choose_trial_resources([NodeResources("head", 0, 0)], RayOptions(), 1)


def test_ray_too_old_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.9.3")
    with pytest.raises(UsageError, match=r"Ray 2\.9\.3 is too old; pip install"):
        check_ray_installed()

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(UsageError, match="Ray is not installed; pip install"):
        EngineFactory("ray")


def test_ray_client_needs_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "grpc" else find_spec(name))
    with pytest.raises(UsageError, match=r'ray://head:10001: .* pip install "ray\[client\]", or .* HOST:6379'):
        EngineFactory("ray", ray=RayOptions("ray://head:10001"))
    EngineFactory("ray", ray=RayOptions("head:6379"))


def test_ray_options_need_the_ray_engine() -> None:
    with pytest.raises(UsageError, match="--ray-address, --cpus-per-trial: only with --engine ray"):
        check_engine_options("local", 1, RayOptions("auto", cpus_per_trial=1))
    with pytest.raises(UsageError, match="engine 'rey': did you mean ray"):
        check_engine_options("rey", 1, None)


def test_an_address_without_a_server() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(UsageError, match="no Ray cluster responds \\(nothing listens on port"):
        connect(RayOptions(address))


def test_an_address_that_does_not_respond_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray_cluster, "RESPONSE_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(ray, "init", lambda **options: time.sleep(60))
    with pytest.raises(UsageError, match="no response within"):
        connect(RayOptions("auto"))


def test_parse_host_port() -> None:
    assert parse_host_port("auto") is None
    assert parse_host_port("ray://head:10001") == ("head", 10001)
    assert parse_host_port("[::1]:6379") == ("::1", 6379)
