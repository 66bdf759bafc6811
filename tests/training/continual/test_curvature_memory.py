"""Memory of curvatures: its prediction, and the refusal of streams that need too much."""

from __future__ import annotations

import pytest

from nbt.errors import UsageError
from nbt.task.task import Task
from nbt.training.continual.curvature_memory import check_curvature_memory, curvature_memory, format_bytes
from nbt.training.continual.learner import TaskStream
from nbt.training.continual.network_learner import make_learner
from nbt.training.continual.scenarios import make_stages
from nbt.training.worker.context import WorkerContext
from tests.training.continual.streams import make_stream_settings


@pytest.mark.parametrize("kind", ["kfac", "diagonal", "exact"])
@pytest.mark.parametrize("frozen", [0.0, 0.67])
def test_the_predicted_memory_is_used(digits: Task, kind: str, frozen: float) -> None:
    settings = make_stream_settings("dlcft", "class", recipe={"curvature": kind, "frozen_depth": frozen, "epochs": 1})
    predicted = curvature_memory(digits, settings)
    stages = make_stages(digits, "class", 2, 0)
    learner = make_learner(TaskStream(digits, settings, 0, stages, WorkerContext(digits)))
    learner.learn(stages[0], lambda epoch: None, None, 30.0)
    learner.consolidate(stages[0])
    (curvature,) = learner.curvatures
    assert predicted is not None
    assert (predicted.kind, predicted.count) == (kind, 1)
    is_bound = kind == "kfac" and predicted.bytes_per_curvature > curvature.nbytes
    assert predicted.bytes_per_curvature == curvature.nbytes or is_bound, "an upper bound for K-FAC"
    assert predicted.parameters == sum(shape.numel() for shape in curvature.shapes.values())


@pytest.mark.parametrize(
    ("method", "options", "count"),
    [
        ("dlcft", {}, 4),
        ("dlcft", {"factors": "merge"}, 2),
        ("dlcft", {"recipe": {"curvature": "exact"}}, 2),
        ("dlcft", {"recipe": {"penalty_strength": 0.0}}, 0),
        ("ewc", {}, 2),
        ("finetune", {}, 0),
        ("probe", {}, 0),
        ("joint", {}, 0),
    ],
)
def test_number_of_curvatures_in_memory(digits: Task, method: str, options: dict[str, object], count: int) -> None:
    memory = curvature_memory(digits, make_stream_settings(method, "data", tasks=5, **options))
    assert (0 if memory is None else memory.count) == count
    assert memory is None or memory.nbytes == count * memory.bytes_per_curvature


def test_too_much_memory_is_refused_with_alternatives(digits: Task) -> None:
    kfac = curvature_memory(digits, make_stream_settings("dlcft", "data", tasks=5))
    assert kfac is not None
    bound = kfac.nbytes - 1
    exact = make_stream_settings("dlcft", "data", tasks=5, memory_bytes=bound, recipe={"curvature": "exact"})
    with pytest.raises(UsageError, match=r"exact curvature of .* weights needs .*--curvature diagonal") as error:
        check_curvature_memory(digits, exact)
    assert "--curvature kfac" not in str(error.value), "four K-FAC curvatures would not fit either"
    with pytest.raises(UsageError, match=f"--factors merge.*--memory with {format_bytes(kfac.nbytes)}"):
        check_curvature_memory(digits, make_stream_settings("dlcft", "data", tasks=5, memory_bytes=bound))
    check_curvature_memory(digits, make_stream_settings("dlcft", "data", tasks=5, memory_bytes=bound + 1))
    check_curvature_memory(digits, make_stream_settings("dlcft", "data", tasks=5, memory_bytes=bound, factors="merge"))
    with pytest.raises(UsageError, match="frozen_depth") as error:
        check_curvature_memory(digits, make_stream_settings("ewc", "data", tasks=5, memory_bytes=0))
    assert "--curvature" not in str(error.value), "EWC has one kind of curvature"


def test_format_bytes() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1024, 1536, 3 * 2**30)] == [
        "0 bytes", "1023 bytes", "1.0 KiB", "1.5 KiB", "3.0 GiB",
    ]  # fmt: skip
