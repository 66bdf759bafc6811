from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbt.settings import TransferSettings
from nbt.transfer import freeze, set_training, set_transferred, units_of
from nbt.transfer.transfer_depth import frozen_units, unit_index_of_key
from tests.tiny import TinyNet, unit_state_dict


@given(share=st.floats(0, 1), n=st.integers(1, 500))
def test_a_share_is_rounded_to_a_number_of_units(share: float, n: int) -> None:
    units = units_of(share, n)
    assert 0 <= units <= n
    assert abs(units - share * n) <= 0.5 + 1e-9


def test_shares_0_and_1_are_no_and_all_units() -> None:
    assert [units_of(share, 19) for share in (0.0, 0.5, 1.0)] == [0, 10, 19]


@pytest.mark.parametrize("depth", range(5))
def test_exactly_the_transferred_units_are_pretrained(depth: int) -> None:
    torch.manual_seed(0)
    model, pretrained, fresh = TinyNet(), unit_state_dict(TinyNet()), unit_state_dict(TinyNet())
    pretrained["units.0.1.running_mean"].fill_(3.0)
    pretrained["units.0.1.num_batches_tracked"].fill_(7)
    set_transferred(model.units, depth, pretrained, fresh)
    for name, tensor in unit_state_dict(model).items():
        source = pretrained if unit_index_of_key(name) < depth else fresh
        assert torch.equal(tensor, source[name]), name


def test_fresh_state_is_required_only_above_the_transfer_depth() -> None:
    model, pretrained = TinyNet(), unit_state_dict(TinyNet())
    set_transferred(model.units, 4, pretrained, {})
    assert torch.equal(model.units[3][0].weight, pretrained["units.3.0.weight"])
    with pytest.raises(KeyError):
        set_transferred(model.units, 3, pretrained, {})


def test_frozen_units_change_neither_weights_nor_statistics() -> None:
    torch.manual_seed(0)
    model = TinyNet()
    freeze(model, model.units, 2)
    set_training(model, model.units, 2)
    before = unit_state_dict(model)
    model(torch.randn(8, 3, 12, 12)).sum().backward()
    for index, unit in enumerate(model.units):
        trains = index >= 2
        assert all((p.grad is not None) == trains for p in unit.parameters())
    after = unit_state_dict(model)
    moved = {unit_index_of_key(name) for name in before if not torch.equal(before[name], after[name])}
    assert moved == {3}, "only the trained unit with BatchNorm moves its statistics"


def test_units_can_be_unfrozen() -> None:
    model = TinyNet()
    freeze(model, model.units, 4)
    freeze(model, model.units, 1)
    assert [all(p.requires_grad for p in unit.parameters()) for unit in model.units] == [False, True, True, True]
    assert model.head.weight.requires_grad


@pytest.mark.parametrize(
    ("transfer", "depth", "top", "expected"),
    [
        (1.0, 0.0, 0.0, (0, [])),
        (1.0, 0.2, 0.3, (2, [7, 8, 9])),
        (1.0, 0.5, 0.6, (5, [5, 6, 7, 8, 9])),
        (0.8, 0.0, 0.4, (0, [6, 7])),
        (0.5, 0.2, 0.4, (2, [])),
    ],
)
def test_frozen_units_are_a_bottom_and_transferred_units_below_the_top(
    transfer: float, depth: float, top: float, expected: tuple[int, list[int]]
) -> None:
    settings = TransferSettings(transfer_depth=transfer, frozen_depth=depth, frozen_top=top)
    bottom, indices = frozen_units(settings, 10)
    assert (bottom, list(indices)) == expected
