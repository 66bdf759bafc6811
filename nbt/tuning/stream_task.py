"""Searches whose target is a stream of tasks; checking the options imports neither PyTorch nor Optuna."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from nbt.errors import UsageError, nearest
from nbt.metrics import DEFAULT_METRIC
from nbt.settings.continual import SCENARIOS, default_tasks

if TYPE_CHECKING:
    from nbt.task.task import Task


def check_stream(scenario: str | None, tasks: int | None, pruner: str, metric: str = DEFAULT_METRIC) -> None:
    """Checks the options of a search whose target is a stream of tasks.

    Args:
        scenario: Scenario of the stream; None if the target is a single task.
        tasks: Number of tasks; None for the default.
        pruner: Name of the pruner.
        metric: Name of the metric to optimise.

    Raises:
        UsageError: A value is invalid, or it does not apply to a stream or to a single task.
    """
    if scenario is None:
        if tasks is not None:
            raise UsageError(f"tasks {tasks}: the number of tasks applies to streams only; give the scenario as well")
        return
    if scenario not in SCENARIOS:
        raise UsageError(f"scenario {scenario!r}: {nearest(scenario, SCENARIOS)}")
    if tasks is not None and tasks < 2:
        raise UsageError(f"tasks {tasks}: a stream needs 2 or more")
    if metric != DEFAULT_METRIC:
        raise UsageError(f"metric {metric}: streams of tasks are measured by their accuracy only; omit the metric")
    if pruner == "asha":
        raise UsageError(
            "pruner asha: trials of a stream are evaluated at their end and never stopped early; omit the pruner"
        )


def as_stream(task: Task, scenario: str, tasks: int | None) -> Task:
    """Returns a copy of a task as a stream of tasks.

    Args:
        task: The task; it is not modified.
        scenario: "data", "task" or "class".
        tasks: Number of tasks; `default_tasks` when None.

    Raises:
        UsageError: The dataset cannot be divided into such tasks.
    """
    from nbt.training.continual.scenarios import make_stages

    n_tasks = tasks or default_tasks(scenario, task.n_classes)
    for role in ("val", "test"):
        make_stages(task, scenario, n_tasks, task.seed, evaluate_on=role)
    return dataclasses.replace(task, scenario=scenario, tasks=n_tasks)
