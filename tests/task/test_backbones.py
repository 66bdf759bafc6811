from __future__ import annotations

import pytest
import torch
from torch import nn

from nbt.errors import UsageError
from nbt.task.backbone_names import parse_backbone
from nbt.task.backbones import Backbone, build_backbone, build_model, default_image_size
from nbt.task.units import decompose

# The smallest member of every family, at a size it works at, with its number of units.
FAMILIES = {
    "alexnet": (64, 7),
    "vgg11": (32, 10),
    "vgg11_bn": (32, 10),
    "squeezenet1_0": (64, 9),
    "squeezenet1_1": (64, 9),
    "densenet121": (64, 63),
    "resnet18": (64, 9),
    "resnet50": (64, 17),
    "mobilenet_v2": (64, 19),
    "mobilenet_v2(width_mult=0.35)": (64, 19),
    "mobilenet_v3_small": (64, 14),
    "efficientnet_b0": (64, 18),
    "mnasnet0_5": (64, 20),
    "shufflenet_v2_x0_5": (64, 18),
    "regnet_y_400mf": (64, 17),
    "convnext_tiny": (64, 23),
    "vit_b_32(image_size=64)": (64, 14),
    "swin_t": (64, 17),
    "swin_v2_t": (64, 17),
    "googlenet": (64, 12),
    "inception_v3": (96, 16),
}
SLOW = {"maxvit_t": (224, 14), "resnext50_32x4d": (64, 17), "efficientnet_v2_s": (64, 42)}
families = [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.mark.parametrize("text", families)
@torch.no_grad()
def test_units_in_order_are_the_model_itself(text: str) -> None:
    size, n_units = {**FAMILIES, **SLOW}[text]
    model = build_model(parse_backbone(text), seed=0)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = model(images)
    parts = decompose(model)
    parts.source_head.eval()
    hidden = images.clone()
    for name, unit in parts.units:
        before = hidden.clone()
        output = unit(hidden)
        assert torch.equal(hidden, before), f"{name} changes its input in place: cached inputs would be spoilt"
        hidden = output
    assert torch.equal(parts.source_head(hidden), expected)
    assert len(parts.units) == n_units
    assert parts.neck(hidden).shape == (2, parts.feature_dim)
    _check_parameters(model, parts.units, parts.neck, parts.source_head)


def _check_parameters(model: nn.Module, units: list[tuple[str, nn.Module]], neck: nn.Module, head: nn.Module) -> None:
    placed = [id(p) for _, unit in units for p in unit.parameters()]
    auxiliary = ("aux1.", "aux2.", "AuxLogits.")
    wanted = {id(p) for name, p in model.named_parameters() if not name.startswith(auxiliary)}
    assert len(placed) == len(set(placed)), "a parameter lies in two units"
    assert not set(placed) & {id(p) for p in head.parameters()}
    assert set(placed) | {id(p) for p in head.parameters()} == wanted
    assert all(any(True for _ in unit.parameters()) for _, unit in units), "a unit without weights"
    assert not list(neck.parameters())


@pytest.mark.parametrize("text", ["conv3(width=4)", "conv4(width=4)", "squeezenet1_1", "mobilenet_v3_small"])
@torch.no_grad()
def test_a_backbone_runs_in_pieces_as_in_one(text: str) -> None:
    model = build_backbone(parse_backbone(text), 7, image_size=64)
    images = torch.randn(3, 3, 64, 64)
    whole = model(images)
    assert whole.shape == (3, 7)
    half = model.forward_units(images, 0, 2)
    assert torch.equal(model.classify(model.forward_units(half, 2)), whole)
    assert torch.equal(model.head(model.features(images)), whole), "dropout is off in evaluation"
    assert isinstance(model.head, nn.Linear)


def test_conv3_is_the_published_encoder_at_its_published_width() -> None:
    model = build_backbone(parse_backbone("conv3(width=256)"), 5, image_size=28)
    assert model.feature_dim == 2304
    assert len(model.units) == 3
    assert len(build_backbone(parse_backbone("conv4"), 5, image_size=84).units) == 4


def test_the_seed_decides_all_weights_and_the_users_generator_stays() -> None:
    spec = parse_backbone("mobilenet_v2(width_mult=0.1)")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one, again, other = (build_backbone(spec, 3, image_size=32, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    assert _equal(one, again)
    assert not _equal(one, other)
    assert not torch.equal(one.head.weight, other.head.weight)


def _equal(one: Backbone, other: Backbone) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_pretrained_state_goes_into_units_only() -> None:
    spec = parse_backbone("conv3(width=4)")
    source, target = (build_backbone(spec, n, image_size=28, seed=n) for n in (5, 3))
    head = target.head.weight.clone()
    target.load_pretrained(source.unit_state())
    assert all(torch.equal(a, b) for a, b in zip(source.units.parameters(), target.units.parameters(), strict=True))
    assert torch.equal(target.head.weight, head)
    with pytest.raises(RuntimeError, match="Missing key"):
        target.load_pretrained({})


@pytest.mark.parametrize(
    ("text", "size"), [("resnet18", 224), ("inception_v3", 299), ("conv3", 28), ("vit_b_16(image_size=64)", 64)]
)
def test_default_image_sizes_are_those_of_the_weights(text: str, size: int) -> None:
    assert default_image_size(parse_backbone(text)) == size


@pytest.mark.parametrize("text", ["resnet18(wdith=3)", "conv3(depth=2)", "mobilenet_v2(width_mult='wide')"])
def test_arguments_that_do_not_fit_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be built"):
        build_backbone(parse_backbone(text), 3, image_size=64)
