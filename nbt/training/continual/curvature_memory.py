"""Memory of the curvatures of a stream, computed and checked before training starts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from nbt.errors import UsageError
from nbt.settings import CURVATURES, TransferSettings, repair
from nbt.settings.continual import ContinualSettings
from nbt.task.task import Task
from nbt.transfer.curvature.estimate import curvature_bytes
from nbt.transfer.transfer_depth import freeze, frozen_units


@dataclass(frozen=True)
class CurvatureMemory:
    """Memory of the curvatures of a stream.

    Attributes:
        kind: "exact", "kfac" or "diagonal".
        parameters: Number of trainable parameters.
        bytes_per_curvature: Bytes per curvature.
        count: Maximum number of curvatures in memory at the same time.
    """

    kind: str
    parameters: int
    bytes_per_curvature: int
    count: int

    @property
    def nbytes(self) -> int:
        """The bytes of all curvatures."""
        return self.bytes_per_curvature * self.count


def curvature_kind(recipe: TransferSettings) -> str | None:
    """Returns the kind of curvature that a repaired recipe stores for past tasks, or None."""
    if recipe.stream.penalty_strength == 0.0:
        return None
    return {"ewc": "diagonal", "dlcft": recipe.stream.curvature}.get(recipe.stream.method)


def keeps_separate_curvatures(settings: ContinualSettings, kind: str) -> bool:
    """Returns whether each past task has a separate curvature; other curvatures are summed, which is exact."""
    return settings.factors == "keep" and kind == "kfac"


def curvature_memory(task: Task, settings: ContinualSettings) -> CurvatureMemory | None:
    """Returns the memory of the curvatures of a stream without computing any; None if the stream has none.

    The last task needs no curvature. If curvatures are summed, two are in memory during a sum.
    """
    kind = curvature_kind(repair(settings.recipe))
    if kind is None:
        return None
    model = _build_frozen_model(task, settings)
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return CurvatureMemory(kind, parameters, curvature_bytes(kind, model), _max_count(settings, kind))


def check_curvature_memory(task: Task, settings: ContinualSettings) -> None:
    """Checks that the curvatures of a stream fit into `memory_bytes` of the settings.

    Raises:
        UsageError: They do not fit; the message has the required memory and suggests alternatives.
    """
    memory = curvature_memory(task, settings)
    if memory is None or memory.nbytes <= settings.memory_bytes:
        return
    raise UsageError(
        f"memory {format_bytes(settings.memory_bytes)}: the {memory.kind} curvature of {memory.parameters} weights "
        f"needs {format_bytes(memory.nbytes)} ({memory.count} of {format_bytes(memory.bytes_per_curvature)}); "
        f"use {', '.join(_suggest_alternatives(task, settings, memory))}"
    )


def format_bytes(nbytes: int) -> str:
    """Returns a number of bytes as text with a unit, such as "1.5 GiB"."""
    size, unit = float(nbytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024.0:
            break
        size, unit = size / 1024.0, larger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def _suggest_alternatives(task: Task, settings: ContinualSettings, memory: CurvatureMemory) -> list[str]:
    """Returns the options that would fit, and general remedies."""
    options = []
    model = _build_frozen_model(task, settings)
    merged_bytes = 2 * memory.bytes_per_curvature
    if keeps_separate_curvatures(settings, memory.kind) and memory.count > 2 and merged_bytes <= settings.memory_bytes:
        options.append(f"--factors merge ({format_bytes(merged_bytes)})")
    for kind in CURVATURES if repair(settings.recipe).stream.method == "dlcft" else ():
        size = curvature_bytes(kind, model) * _max_count(settings, kind)
        if kind != memory.kind and size <= settings.memory_bytes:
            options.append(f"--curvature {kind} ({format_bytes(size)})")
    return [*options, "a greater frozen_depth", f"or --memory with {format_bytes(memory.nbytes)} or more"]


def _max_count(settings: ContinualSettings, kind: str) -> int:
    """Returns the maximum number of curvatures that are in memory at the same time."""
    return settings.tasks - 1 if keeps_separate_curvatures(settings, kind) else min(2, settings.tasks - 1)


def _build_frozen_model(task: Task, settings: ContinualSettings) -> nn.Module:
    recipe, model = repair(settings.recipe), task.build_model(seed=0)
    freeze(model, model.units, *frozen_units(recipe, len(model.units)))
    return model
