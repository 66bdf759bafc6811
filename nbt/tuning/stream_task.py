"""What says that the target of a search is a stream of tasks, checked without torch or optuna."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from nbt.errors import UsageError, nearest
from nbt.settings.continual import SCENARIOS, default_tasks

if TYPE_CHECKING:
    from nbt.task.task import Task


def check_stream(scenario: str | None, tasks: int | None, pruner: str) -> None:
    """Checks what says that the target is a stream of tasks; without torch.

    Raises:
        UsageError: A value is wrong, or one is given that a stream has no use for.
    """
    if scenario is None:
        if tasks is not None:
            raise UsageError(f"tasks {tasks}: only a stream has tasks; give its scenario as well")
        return
    if scenario not in SCENARIOS:
        raise UsageError(f"scenario {scenario!r}: {nearest(scenario, SCENARIOS)}")
    if tasks is not None and tasks < 2:
        raise UsageError(f"tasks {tasks}: a stream needs 2 or more")
    if pruner == "asha":
        raise UsageError("pruner asha: a stream is judged at its end, so no trial is stopped early; leave it out")


def as_stream(task: Task, scenario: str, tasks: int | None) -> Task:
    """Returns the task as a stream of tasks.

    Args:
        task: It is left as it is.
        scenario: "data", "task" or "class".
        tasks: Length; see `default_tasks` when None.

    Raises:
        UsageError: The dataset does not give such tasks.
    """
    from nbt.training.continual.scenarios import make_stages

    n_tasks = tasks or default_tasks(scenario, task.n_classes)
    for role in ("val", "test"):
        make_stages(task, scenario, n_tasks, task.seed, evaluate_on=role)
    return dataclasses.replace(task, scenario=scenario, tasks=n_tasks)
