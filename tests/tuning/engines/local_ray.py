"""Local Ray instances for tests: small, without dashboard, ended with their context."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

OPTIONS = {"object_store_memory": 200 << 20, "include_dashboard": False}
# Each option removes a Python process that no test needs; a busy machine cannot start all of them within Ray's 30 s.
MINIMAL_NODE_OPTIONS = {**OPTIONS, "no_monitor": True, "include_log_monitor": False}


def set_ray_environment() -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")


@contextmanager
def local_ray(num_gpus: int = 0) -> Iterator[None]:
    import ray

    set_ray_environment()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address="local", num_cpus=2, num_gpus=num_gpus, logging_level=logging.ERROR, log_to_driver=False, **OPTIONS
        )
    except Exception as error:  # too little shared memory, or the machine is too busy
        pytest.skip(f"Ray does not start on this machine: {error}")
    signal.signal(signal.SIGTERM, before)  # as `connect` does
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def local_cluster(**head: Any) -> Iterator[Any]:
    """A cluster of raylets on this machine: the head and the nodes that `add_node` adds."""
    import ray
    from ray.cluster_utils import Cluster

    set_ray_environment()
    before = signal.getsignal(signal.SIGTERM)
    cluster = Cluster(initialize_head=True, head_node_args={**head, **MINIMAL_NODE_OPTIONS})
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        signal.signal(signal.SIGTERM, before)
