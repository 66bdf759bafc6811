"""Parameter groups of the head, for trainings with a stall."""

from __future__ import annotations

import pytest

from nbt.settings import TransferSettings
from nbt.training.recipe.stall import split_off_head
from nbt.transfer.layer_lr import parameter_groups
from tests.tiny import TinyNet


@pytest.mark.parametrize("head_lr", [0.01, 0.5])
def test_split_groups_keep_their_learning_rates_and_decay(head_lr: float) -> None:
    model = TinyNet()
    settings = TransferSettings(head_lr=head_lr, body_lr=0.01)
    groups = parameter_groups(model.units, model.head, settings)
    head = set(model.head.parameters())

    def facts(groups: list) -> dict:
        return {p: (g.lr, g.alpha, g.beta) for g in groups for p in g.parameters}

    split = split_off_head(groups, model.head)
    assert facts(split) == facts(groups)
    assert sum(len(g.parameters) for g in split) == len(facts(groups))
    assert all(head.issuperset(g.parameters) or head.isdisjoint(g.parameters) for g in split)
