"""The stall of FAST: the head alone trains during the first steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack

from torch import nn

from nbt.training.recipe.checks import stall_steps
from nbt.transfer.fast import stalled
from nbt.transfer.layer_lr import ParameterGroup
from nbt.transfer.technique import TrainingHooks, TrainingRun


class Stall(TrainingHooks):
    """Freezes the units that train during the first steps, and raises the rate of the head (`nbt.transfer.fast`)."""

    def __init__(self, run: TrainingRun) -> None:
        self._units = list(run.model.units[run.frozen :])  # type: ignore[index]
        self._end = stall_steps(run.settings, run.steps_per_epoch)
        self._multiplier = run.settings.head_lr_multiplier
        self._steps_per_epoch = run.steps_per_epoch
        self._stall = ExitStack()

    def before_epoch(self, epoch: int) -> None:
        """Freezes the units if the epoch starts within the stall."""
        if (epoch - 1) * self._steps_per_epoch < self._end:
            self._stall.enter_context(stalled(*self._units))

    def before_step(self, step: int) -> None:
        """Ends the stall after its last step."""
        if step == self._end:
            self._stall.close()

    def after_epoch(self) -> None:
        """Restores the modules; the next epoch may continue the stall."""
        self._stall.close()

    def lr_factor(self, step: int) -> float:
        """Returns the factor of the head's rate, which is the only one during the stall."""
        return self._multiplier if step < self._end else 1.0


def split_off_head(groups: Sequence[ParameterGroup], head: nn.Module) -> list[ParameterGroup]:
    """Returns the groups with the parameters of the head in separate groups.

    A fused optimiser needs the state of all parameters of a group to start in the same step; with a stall, the state of
    the backbone starts later than that of the head.
    """
    members = set(head.parameters())
    parts = [
        dataclasses.replace(group, parameters=[p for p in group.parameters if (p in members) == inside])
        for inside in (False, True)
        for group in groups
    ]
    return [group for group in parts if group.parameters]
