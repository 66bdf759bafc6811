"""Restriction of a search space to the dimensions that apply to a task."""

from __future__ import annotations

from nbt.errors import UsageError
from nbt.settings import SETTINGS, TECHNIQUES
from nbt.task.task import Task
from nbt.tuning.space.space import BACKBONE, Space

DEFAULT_SPACE = "non_binary"
_CONDITIONAL_TECHNIQUES = ("injection", "pretraining", "continual")


def _settings_of(*techniques: str) -> list[str]:
    return [name for name, setting in SETTINGS.items() if setting.technique in techniques]


def unconditional_space(space: Space) -> Space:
    """Returns the space without the dimensions that apply only to some tasks.

    Every point of the returned space can be trained on any task.
    """
    return space.without(_settings_of(*_CONDITIONAL_TECHNIQUES))


def applicable_space(space: Space, task: Task) -> Space:
    """Returns the space restricted to the dimensions that a task can vary; every point of it can be trained.

    The injection dimensions need a teacher, and the pretraining dimensions need a source model that nbt trains itself.
    A dimension that does not apply is fixed at its neutral value. With one teacher, the setting `teacher` is fixed at
    its name; with several, it is a dimension.

    Raises:
        UsageError: The space varies injection but the task has no teachers, or it varies continual-learning methods but
            the task is not part of a stream.
    """
    from nbt.training.worker.starting_weights import has_nbt_source

    if space.has_backbones:
        raise UsageError(f"space {space.name} varies {BACKBONE}: give --backbone several times instead")
    if not has_nbt_source(task):
        space = space.without(_settings_of("pretraining"))
    space = space.without(_settings_of(*(name for name, item in TECHNIQUES.items() if not item.applies(task))))
    if task.scenario is None and any(d.name == "method" for d in space.dimensions):
        raise UsageError(
            f"space {space.name} varies methods against forgetting, which need a stream of tasks: give "
            "--scenario data, task or class"
        )
    if not any(d.name == "init" and "inject" in d.choices for d in space.dimensions):
        return space
    if task.teachers:
        return space.with_teachers([teacher.name for teacher in task.teachers])
    if space.name != DEFAULT_SPACE:
        raise UsageError(
            f"space {space.name} varies weight injection, which needs a teacher: give "
            "--teacher BACKBONE or --teacher BACKBONE=FILE"
        )
    return space.without(_settings_of("injection"))
