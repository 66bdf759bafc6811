"""Memory of the curvatures that a stream keeps: known and bounded before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from nbt.errors import UsageError
from nbt.settings import CURVATURES, TransferSettings, repair
from nbt.settings.continual import ContinualSettings
from nbt.task.task import Task
from nbt.transfer.curvature.estimate import curvature_bytes
from nbt.transfer.transfer_depth import freeze, units_of


@dataclass(frozen=True)
class CurvatureMemory:
    """What the curvatures of a stream take.

    Attributes:
        kind: "exact", "kfac" or "diagonal".
        parameters: Numbers that train.
        each: Bytes of one.
        count: How many are held at once.
    """

    kind: str
    parameters: int
    each: int
    count: int

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return self.each * self.count


def curvature_kind(recipe: TransferSettings) -> str | None:
    """Returns the curvature that a repaired recipe keeps of past tasks; None where it keeps none."""
    if recipe.penalty_strength == 0.0:
        return None
    return {"ewc": "diagonal", "dlcft": recipe.curvature}.get(recipe.method)


def keeps_separate_curvatures(settings: ContinualSettings, kind: str) -> bool:
    """Returns whether past tasks keep curvatures of their own: exact and diagonal ones add up without loss."""
    return settings.factors == "keep" and kind == "kfac"


def curvature_memory(task: Task, settings: ContinualSettings) -> CurvatureMemory | None:
    """Returns what the curvatures of a stream will take, without computing one; None where there are none.

    Of the last task none is needed. Where they are summed, two are held while one is added.
    """
    kind = curvature_kind(repair(settings.recipe))
    if kind is None:
        return None
    model = _build_frozen_model(task, settings)
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return CurvatureMemory(kind, parameters, curvature_bytes(kind, model), _max_held(settings, kind))


def check_curvature_memory(task: Task, settings: ContinualSettings) -> None:
    """Checks that the curvatures of a stream fit.

    Raises:
        UsageError: They do not; it says what they need and what would fit.
    """
    needed = curvature_memory(task, settings)
    if needed is None or needed.nbytes <= settings.memory_bytes:
        return
    raise UsageError(
        f"memory {format_bytes(settings.memory_bytes)}: the {needed.kind} curvature of {needed.parameters} weights needs "
        f"{format_bytes(needed.nbytes)} ({needed.count} of {format_bytes(needed.each)}); "
        f"use {', '.join(_suggest_alternatives(task, settings, needed))}"
    )


def format_bytes(nbytes: int) -> str:
    """Returns a number of bytes for people, such as "1.5 GiB"."""
    size, unit = float(nbytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024.0:
            break
        size, unit = size / 1024.0, larger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def _suggest_alternatives(task: Task, settings: ContinualSettings, needed: CurvatureMemory) -> list[str]:
    """Returns what would need less, as far as it would fit, and what always helps."""
    found = []
    model = _build_frozen_model(task, settings)
    if (
        keeps_separate_curvatures(settings, needed.kind)
        and needed.count > 2
        and 2 * needed.each <= settings.memory_bytes
    ):
        found.append(f"--factors merge ({format_bytes(2 * needed.each)})")
    for kind in CURVATURES if repair(settings.recipe).method == "dlcft" else ():
        size = curvature_bytes(kind, model) * _max_held(settings, kind)
        if kind != needed.kind and size <= settings.memory_bytes:
            found.append(f"--curvature {kind} ({format_bytes(size)})")
    return [*found, "a greater frozen_depth", f"or --memory with {format_bytes(needed.nbytes)} or more"]


def _max_held(settings: ContinualSettings, kind: str) -> int:
    return settings.tasks - 1 if keeps_separate_curvatures(settings, kind) else min(2, settings.tasks - 1)


def _build_frozen_model(task: Task, settings: ContinualSettings) -> nn.Module:
    recipe, model = repair(settings.recipe), task.build_model()
    total = len(model.units)
    freeze(model, model.units, min(units_of(recipe.frozen_depth, total), units_of(recipe.transfer_depth, total)))
    return model
