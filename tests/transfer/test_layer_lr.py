from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models.convnext import CNBlock
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from nbt.settings import TransferSettings
from nbt.transfer import freeze, geometric_shape, parameter_groups, rate_multipliers
from tests.tiny import TinyNet

shapes = st.tuples(*[st.floats(-3, 3)] * 3)


@given(shape=shapes, n=st.integers(2, 60))
def test_the_curve_passes_through_its_knots_and_stays_between_them(shape: tuple[float, float, float], n: int) -> None:
    curve = rate_multipliers(shape, n)
    assert len(curve) == n
    assert curve[0] == pytest.approx(10 ** shape[0])
    assert curve[-1] == pytest.approx(10 ** shape[2])
    if n % 2:
        assert curve[n // 2] == pytest.approx(10 ** shape[1])
    assert all(10 ** min(shape) * 0.999 <= value <= 10 ** max(shape) * 1.001 for value in curve)


@given(decay=st.floats(0.5, 1.0), n=st.integers(2, 40))
def test_geometric_decay_is_a_special_case(decay: float, n: int) -> None:
    curve = rate_multipliers(geometric_shape(decay, n), n)
    for lower, upper in itertools.pairwise(curve):
        assert lower / upper == pytest.approx(decay, rel=1e-9)
    assert curve[-1] == pytest.approx(1.0)


def test_a_decay_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        geometric_shape(0.0, 3)


@given(
    transfer=st.floats(0, 1),
    frozen=st.integers(0, 4),
    sp_depth=st.floats(0, 1),
    mix=st.floats(0, 1),
    shape=shapes,
)
def test_each_trained_parameter_is_in_exactly_one_group(
    transfer: float, frozen: int, sp_depth: float, mix: float, shape: tuple[float, float, float]
) -> None:
    model = TinyNet()
    freeze(model, model.units, frozen)
    settings = TransferSettings(transfer_depth=transfer, sp_depth=sp_depth, sp_mix=mix, layer_lr_shape=shape)
    groups = parameter_groups(model.units, model.head, settings)
    placed = [id(p) for group in groups for p in group.parameters]
    assert len(placed) == len(set(placed))
    assert set(placed) == {id(p) for p in model.parameters() if p.requires_grad}


def test_strengths_follow_depth_and_mix() -> None:
    model = TinyNet()
    settings = TransferSettings(transfer_depth=0.75, sp_depth=0.5, sp_mix=0.25, decay_strength=0.4)
    groups = parameter_groups(model.units, model.head, settings)
    strengths = {id(p): (g.alpha, g.beta) for g in groups for p in g.parameters}
    assert strengths[id(model.units[1][0].weight)] == pytest.approx((0.1, 0.3))
    assert strengths[id(model.units[2][0].weight)] == (0.0, 0.4), "above sp_depth the decay is plain L2"
    assert strengths[id(model.head.weight)] == (0.0, 0.4), "new layers have no anchor"
    for vector in (model.units[0][1].weight, model.units[2][0].bias, model.head.bias):
        assert strengths[id(vector)] == (0.0, 0.0), "biases and normalisation are not decayed"


def test_reinitialised_units_have_no_anchor() -> None:
    model = TinyNet()
    groups = parameter_groups(model.units, model.head, TransferSettings(transfer_depth=0.25, sp_mix=1.0))
    anchored = {id(p) for g in groups if g.alpha for p in g.parameters}
    assert anchored == {id(model.units[0][0].weight)}


def test_rates_are_the_head_rate_and_the_body_rate_times_the_curve() -> None:
    model = TinyNet()
    settings = TransferSettings(head_lr=0.5, body_lr=0.1, layer_lr_shape=(-2.0, -1.0, 0.0))
    rates = {id(p): g.lr for g in parameter_groups(model.units, model.head, settings) for p in g.parameters}
    assert rates[id(model.head.bias)] == 0.5
    expected = [0.1 * 10 ** (-2 + 2 * i / 3) for i in range(4)]
    assert [rates[id(next(unit.parameters()))] for unit in model.units] == pytest.approx(expected)


def test_a_parameter_shared_by_two_units_belongs_to_the_lower_one() -> None:
    shared = nn.Linear(2, 2, bias=False)
    units = nn.ModuleList([nn.Sequential(shared), nn.Sequential(shared, nn.Linear(2, 2))])
    groups = parameter_groups(units, nn.Linear(2, 2), TransferSettings(layer_lr_shape=(-1.0, -1.0, 0.0)))
    owner = [g for g in groups if any(p is shared.weight for p in g.parameters)]
    assert len(owner) == 1
    assert math.isclose(owner[0].lr, 0.001)


class Scaled(nn.Module):
    """Parts of torchvision's ConvNeXt, Swin (both versions) and vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.convnext = CNBlock(8, 1e-6, 0.0)
        self.swin = ShiftedWindowAttention(8, [2, 2], [0, 0], 2)
        self.swin_v2 = ShiftedWindowAttentionV2(8, [2, 2], [0, 0], 2)
        self.class_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.pos_embedding = nn.Parameter(torch.zeros(1, 5, 8))


def test_scales_and_temperatures_of_any_shape_are_not_decayed() -> None:
    part = Scaled()
    groups = parameter_groups(nn.ModuleList([part]), nn.Linear(8, 2), TransferSettings(decay_strength=0.4))
    decayed = {id(p) for group in groups if group.alpha + group.beta for p in group.parameters}
    names = {name for name, parameter in part.named_parameters() if id(parameter) in decayed}
    vectors = {"convnext.layer_scale", "swin_v2.logit_scale"}
    tables = {"class_token", "pos_embedding", "swin.relative_position_bias_table"}
    shapes = {name: parameter.ndim for name, parameter in part.named_parameters()}
    assert all(shapes[name] == 3 for name in vectors), "otherwise the test would have no effect"
    assert names == {name for name, ndim in shapes.items() if ndim > 1} - vectors
    assert tables < names
