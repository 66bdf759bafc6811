"""A Ray cluster of a head and one more node on this machine, in a process that takes commands from its stdin.

Usage: python -m faults.ray_cluster. It writes the address of the cluster, and then one line per command:

    node   kills the raylet of the second node, and all of its processes
    head   kills the server of the head
    close  ends the cluster
    fill   puts more objects than the object store of a node can hold, and keeps them
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from tests.tuning.engines.local_ray import local_cluster

_OBJECT_BYTES, _OBJECTS = 12 << 20, 24  # more than the store of `local_cluster`, so that Ray writes some to disk


def main() -> None:
    """Runs the cluster until it is closed."""
    kept: list[Any] = []
    with local_cluster(num_cpus=1) as cluster:
        node = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        cluster.wait_for_nodes()
        print(cluster.address, flush=True)
        for line in sys.stdin:
            command = line.strip()
            if command == "node":
                cluster.remove_node(node, allow_graceful=False)
            elif command == "head":
                cluster.head_node.kill_gcs_server()
            elif command == "fill":
                kept = _fill(cluster.address)
            elif command == "close":
                break
            print(command, len(kept), flush=True)


def _fill(address: str) -> list[Any]:
    import numpy as np
    import ray

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    return [ray.put(np.ones(_OBJECT_BYTES, np.uint8)) for _ in range(_OBJECTS)]


if __name__ == "__main__":
    main()
