"""The number of trials that a cluster has room for."""

from __future__ import annotations

import pytest

from nbt.tuning.engines.ray.cluster_resources import NodeResources, fitting_trials
from nbt.tuning.engines.ray.options import RayOptions

CPUS = [NodeResources("a", 8, 0), NodeResources("b", 4, 0)]
GPUS = [NodeResources("a", 8, 2), NodeResources("b", 64, 1), NodeResources("head", 4, 0)]


@pytest.mark.parametrize(
    ("nodes", "options", "expected"),
    [
        (CPUS, {}, 12),
        (CPUS, {"cpus_per_trial": 3}, 3),
        (CPUS, {"cpus_per_trial": 0.5}, 24),
        (CPUS, {"cpus_per_trial": 16}, 1),
        (CPUS, {"gpus_per_trial": "auto"}, 12),
        (GPUS, {}, 3),
        (GPUS, {"gpus_per_trial": 0.5}, 6),
        (GPUS, {"gpus_per_trial": 1}, 3),
        (GPUS, {"gpus_per_trial": 0}, 76),
        (GPUS, {"gpus_per_trial": "auto"}, 8 + 16),
        (GPUS, {"gpus_per_trial": "auto", "cpus_per_trial": 4}, 2 + 16),
        ([], {}, 1),
    ],
)
def test_the_resources_of_a_trial_determine_the_number(
    nodes: list[NodeResources], options: dict[str, float], expected: int
) -> None:
    assert fitting_trials(nodes, RayOptions(**options)) == expected  # type: ignore[arg-type]
