"""Parameter groups of the head, for training in which the backbone stalls for the first steps (FAST)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import nn

from nbt.transfer.layer_lr import ParameterGroup


def head_parameter_groups(groups: Sequence[ParameterGroup], head: nn.Module) -> list[ParameterGroup]:
    """Returns what there is of the head in parameter groups."""
    own = set(head.parameters())
    return [group for group in _filter_parameters(groups, own, inside=True) if group.parameters]


def split_off_head(groups: Sequence[ParameterGroup], head: nn.Module) -> list[ParameterGroup]:
    """Returns the groups with the head's parameters in groups of their own.

    A fused optimiser wants the state of all parameters of a group to begin in the same step; after a stall the
    backbone's begins later.
    """
    own = set(head.parameters())
    parts = [*_filter_parameters(groups, own, inside=False), *_filter_parameters(groups, own, inside=True)]
    return [group for group in parts if group.parameters]


def _filter_parameters(
    groups: Sequence[ParameterGroup], own: set[nn.Parameter], *, inside: bool
) -> list[ParameterGroup]:
    return [dataclasses.replace(g, parameters=[p for p in g.parameters if (p in own) == inside]) for g in groups]
