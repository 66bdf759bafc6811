"""Applicable: which dimensions of a space a task can vary."""

from __future__ import annotations

from nbt.errors import UsageError
from nbt.task.task import Task
from nbt.tuning.space.space import Space

DEFAULT_SPACE = "non_binary"
_INJECTION_SETTINGS = ("init", "blend")
_PRETRAINING_SETTINGS = ("pretrain_scheme", "pretrain_zap_period")
_STREAM_SETTINGS = ("method", "curvature", "penalty_strength")


def unconditional_space(space: Space) -> Space:
    """Returns a space whose every point can be trained on any task."""
    return space.without((*_INJECTION_SETTINGS, *_PRETRAINING_SETTINGS, *_STREAM_SETTINGS))


def applicable_space(space: Space, task: Task) -> Space:
    """Returns a space whose every point can be trained on a task.

    Without a teacher nothing is injected, and how the source was trained can be varied where it is trained here only;
    what cannot be varied is held at its neutral value. With a teacher, `teacher` is held at its name.

    Raises:
        UsageError: The space is about injection, and the task has no teacher; or about streams, and it is none.
    """
    from nbt.training.worker.starting_weights import has_nbt_source

    if not has_nbt_source(task):
        space = space.without(_PRETRAINING_SETTINGS)
    if task.scenario is None and any(d.name == "method" for d in space.dimensions):
        raise UsageError(
            f"space {space.name} varies what is done against forgetting: give the scenario of the stream, data, task "
            "or class (--scenario)"
        )
    if not any(d.name == "init" and "inject" in d.choices for d in space.dimensions):
        return space
    if task.teacher is not None:
        return space.with_fixed(teacher=task.teacher.name)
    if space.name != DEFAULT_SPACE:
        raise UsageError(
            f"space {space.name} varies what is injected: give the teacher, as BACKBONE or BACKBONE=FILE (--teacher)"
        )
    return space.without(_INJECTION_SETTINGS)
