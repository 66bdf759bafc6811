"""Parameter groups of the head, for trainings whose backbone stalls during the first steps (FAST)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import nn

from nbt.transfer.layer_lr import ParameterGroup


def head_parameter_groups(groups: Sequence[ParameterGroup], head: nn.Module) -> list[ParameterGroup]:
    """Returns the parameter groups with the parameters of the head only, without groups that have none."""
    head_parameters = set(head.parameters())
    return [group for group in _filter_parameters(groups, head_parameters, inside=True) if group.parameters]


def split_off_head(groups: Sequence[ParameterGroup], head: nn.Module) -> list[ParameterGroup]:
    """Returns the groups with the parameters of the head in separate groups.

    A fused optimiser needs the state of all parameters of a group to start in the same step; with a stall, the state of
    the backbone starts later than that of the head.
    """
    head_parameters = set(head.parameters())
    body_groups = _filter_parameters(groups, head_parameters, inside=False)
    head_groups = _filter_parameters(groups, head_parameters, inside=True)
    return [group for group in (*body_groups, *head_groups) if group.parameters]


def _filter_parameters(
    groups: Sequence[ParameterGroup], members: set[nn.Parameter], *, inside: bool
) -> list[ParameterGroup]:
    return [dataclasses.replace(g, parameters=[p for p in g.parameters if (p in members) == inside]) for g in groups]
