"""Registration of techniques that bring their own settings: everything that nbt needs to know of a technique.

A new technique is one file in `nbt/transfer` (or in another package) that calls `register`. From then on its settings
can be given in YAML, varied by a search space, suggested by priors, and are shown in reports, tables and MLflow, and
`fine_tune` calls its hooks (`nbt.transfer.technique`). Its settings are stored only where they are not neutral, so
that registering a technique changes no stored result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nbt.errors import UsageError
from nbt.settings.declaration import SETTINGS, Setting
from nbt.settings.transfer import TransferSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class Technique:
    """A technique of fine-tuning.

    Attributes:
        name: Name of the technique, the `technique` of its settings.
        source: The paper, or another reference.
        settings: Declarations of its settings; with all of them neutral, training is the same as without it.
        hooks: Returns the `nbt.transfer.technique.TrainingHooks` of a training whose settings are not neutral, given
            its `nbt.transfer.technique.TrainingRun`.
        repair: Replaces combinations without effect, as `nbt.settings.repair` does; called after all others.
        coordinates: Coordinates for the surrogate models by name, each a function of settings with values of about
            0 ... 1 that is constant while the technique is not used.
        applies: Returns whether a task (`nbt.task.task.Task`) can use the technique; elsewhere a search space does not
            vary its settings.
    """

    name: str
    source: str
    settings: tuple[Setting, ...]
    hooks: Callable[[Any], Any]
    repair: Callable[[TransferSettings], TransferSettings] = lambda settings: settings
    coordinates: Mapping[str, Callable[[TransferSettings], float]] = field(default_factory=dict)
    applies: Callable[[Any], bool] = lambda task: True

    def is_used(self, settings: TransferSettings) -> bool:
        """Returns whether any of the technique's settings is not neutral."""
        return any(settings.value(item.name) != item.default for item in self.settings)


TECHNIQUES: dict[str, Technique] = {}
"""The registered techniques by name, in the order of their registration."""


def register(technique: Technique) -> Technique:
    """Registers a technique and returns it.

    Raises:
        UsageError: A technique or a setting of the same name exists, or a setting names another technique.
    """
    if technique.name in TECHNIQUES:
        raise UsageError(f"technique {technique.name}: already registered")
    for item in technique.settings:
        if item.technique != technique.name:
            raise UsageError(f"setting {item.name}: its technique is {item.technique!r}, not {technique.name!r}")
    SETTINGS.add(technique.settings, technique.hooks.__module__)
    TECHNIQUES[technique.name] = technique
    return technique


def unregister(name: str) -> None:
    """Removes a registered technique and its settings; unknown names are ignored."""
    technique = TECHNIQUES.pop(name, None)
    if technique is not None:
        SETTINGS.remove(technique.settings)
