"""Backbones: the units of every torchvision family reproduce the model exactly."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from nbt.errors import UsageError
from nbt.models.backbone import (
    Backbone,
    build_backbone,
    build_on_meta_device,
    default_image_size,
    feature_dim,
    random_unit_state,
    unit_work,
)
from nbt.models.backbone_spec import backbone_names, parse_backbone
from nbt.models.encoders import ENCODER_BUILDERS
from nbt.models.units import Decomposition, decompose

# Builder, arguments, image size, number of units, dropout before the head.
FAMILIES: list[tuple[str, dict[str, Any], int, int, float]] = [
    ("alexnet", {}, 64, 7, 0.0),
    ("convnext_tiny", {}, 64, 23, 0.0),
    ("densenet121", {}, 64, 63, 0.0),
    ("efficientnet_b0", {}, 64, 18, 0.2),
    ("efficientnet_v2_s", {}, 64, 42, 0.2),
    ("googlenet", {"transform_input": True, "aux_logits": True, "init_weights": True}, 64, 12, 0.2),
    ("inception_v3", {"transform_input": False, "aux_logits": True, "init_weights": True}, 80, 16, 0.5),
    ("maxvit_t", {}, 224, 14, 0.0),
    ("mnasnet0_5", {}, 64, 20, 0.2),
    ("mobilenet_v2", {"width_mult": 0.35}, 64, 19, 0.2),
    ("mobilenet_v3_small", {}, 64, 14, 0.2),
    ("regnet_x_400mf", {}, 64, 23, 0.0),
    ("regnet_y_400mf", {}, 64, 17, 0.0),
    ("resnet18", {}, 64, 9, 0.0),
    ("resnext50_32x4d", {}, 64, 17, 0.0),
    ("shufflenet_v2_x0_5", {}, 64, 18, 0.0),
    ("squeezenet1_0", {}, 64, 9, 0.5),
    ("squeezenet1_1", {}, 64, 9, 0.5),
    ("swin_t", {}, 64, 17, 0.0),
    ("swin_v2_t", {}, 64, 17, 0.0),
    ("vgg11_bn", {}, 64, 10, 0.5),
    ("vit_b_32", {"image_size": 64, "representation_size": 24}, 64, 15, 0.0),
]
_AUXILIARY = ("aux1", "aux2", "AuxLogits")


@dataclass(frozen=True, eq=False)
class Case:
    """A model of a family with its pieces, and images for it."""

    name: str
    model: nn.Module
    parts: Decomposition
    images: torch.Tensor
    n_units: int
    dropout: float


@torch.no_grad()
def _perturb(model: nn.Module, images: torch.Tensor) -> None:
    """Moves vectors away from 0 and 1, which would hide a wrong order, and fits BatchNorm to images."""
    for parameter in model.parameters():
        if parameter.ndim < 2 or parameter.numel() < 100_000:
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = None
        elif isinstance(module, nn.Conv2d) and module.groups > 1:
            nn.init.kaiming_normal_(module.weight)  # with the library's small weights all images have the same logits
    model(images)
    model.eval()


@pytest.fixture(scope="module", params=FAMILIES, ids=[family[0] for family in FAMILIES])
def case(request: pytest.FixtureRequest) -> Case:
    name, arguments, size, n_units, dropout = request.param
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.get_model(name, **arguments).eval()
        images = torch.randn(2, 3, size, size)
        _perturb(model, images)
    return Case(name, model, decompose(model), images, n_units, dropout)


@torch.no_grad()
def test_units_and_source_head_reproduce_the_model_exactly(case: Case) -> None:
    hidden = case.images
    for _, unit in case.parts.units:
        hidden = unit(hidden)
    assert case.parts.source_head is not None
    logits = case.parts.source_head(hidden)
    expected = case.model(case.images)
    assert torch.equal(logits, expected)
    assert expected.isfinite().all()
    assert not torch.allclose(expected[0], expected[1])  # otherwise the test would be weak
    assert case.parts.neck(hidden).ndim == 2


def test_every_parameter_belongs_to_one_piece(case: Case) -> None:
    assert case.parts.source_head is not None
    pieces = [unit for _, unit in case.parts.units] + [case.parts.source_head]
    placed = [id(parameter) for piece in pieces for parameter in piece.parameters()]
    expected = [id(p) for name, p in case.model.named_parameters() if not name.startswith(_AUXILIARY)]
    assert sorted(placed) == sorted(expected)
    assert not list(case.parts.neck.parameters())
    assert next(name for name, _ in case.parts.source_head.named_parameters()) == "head.weight"


def test_units_are_fine_grained_and_named_and_have_weights(case: Case) -> None:
    names = [name for name, _ in case.parts.units]
    assert len(names) == len(set(names)) == case.n_units
    assert case.parts.dropout == case.dropout
    known = {name for name, _ in case.model.named_modules()}
    assert set(names) <= known
    for _, unit in case.parts.units:
        assert list(unit.parameters())


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
def test_no_unit_modifies_its_input(case: Case, training: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hidden = case.images
        try:
            for name, unit in (*case.parts.units, ("neck", case.parts.neck)):
                unit.train(training)
                before = hidden.clone()
                output = unit(hidden)
                assert torch.equal(hidden, before), name
                hidden = output
        finally:
            case.model.eval()
            for _, unit in case.parts.units:
                unit.eval()


def test_all_torchvision_builders_are_supported() -> None:
    left_out = []
    for name in backbone_names():
        spec = parse_backbone(name)
        model, parts = build_on_meta_device(spec, default_image_size(spec))
        head = [] if parts.source_head is None else list(parts.source_head.parameters())
        placed = [id(p) for _, unit in parts.units for p in unit.parameters()] + [id(p) for p in head]
        if sorted(placed) != sorted(id(p) for p in model.parameters()) or not all(
            p.is_meta for p in model.parameters()
        ):
            left_out.append(name)
    assert not left_out
    assert len(backbone_names()) > 80


def test_other_models_are_refused() -> None:
    with pytest.raises(UsageError, match="a model of class Linear cannot be read as ordered units"):
        decompose(nn.Linear(2, 2))


SMALL = "mobilenet_v2(width_mult=0.25, dropout=0.3)"


@pytest.fixture(scope="module")
def small() -> Backbone:
    return build_backbone(parse_backbone(SMALL), 5, image_size=32, seed=3)


@torch.no_grad()
def test_a_backbone_is_units_neck_dropout_and_head(small: Backbone) -> None:
    images = torch.randn(3, 3, 32, 32)
    assert not small.training
    assert (small.n_units, small.feature_dim, small.dropout.p) == (19, 1280, 0.3)
    assert small.unit_names[:2] == ("features.0", "features.1")
    middle = small.forward_units(images, stop=7)
    top = small.forward_units(middle, 7)
    assert torch.equal(small.features(images), small.neck(top))
    assert torch.equal(small(images), small.classify(top))
    assert torch.equal(small(images), small.head(small.features(images)))
    assert small(images).shape == (3, 5)
    assert [name for name, _ in small.neck.named_parameters()] == []


def test_dropout_is_applied_between_features_and_head(small: Backbone) -> None:
    features = torch.rand(64, 1280) + 1.0
    before = features.clone()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small.dropout.train()
        dropped = small.dropout(features)
        small.dropout.eval()
    assert torch.equal(features, before)
    assert 0.25 < float((dropped == 0).float().mean()) < 0.35


def test_weights_depend_only_on_the_seed(small: Backbone) -> None:
    spec = parse_backbone(SMALL)
    before = torch.get_rng_state()
    again = build_backbone(spec, 5, image_size=32, seed=3)
    wider = build_backbone(spec, 9, image_size=64, seed=3)
    other = random_unit_state(spec, 32, seed=4)
    build_on_meta_device(spec, 32)
    assert torch.equal(torch.get_rng_state(), before)
    state, same = small.state_dict(), again.state_dict()
    assert all(torch.equal(state[name], same[name]) for name in state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in wider.unit_state_dict().items())
    assert all(torch.equal(tensor, state[name]) for name, tensor in random_unit_state(spec, 32, seed=3).items())
    assert not torch.equal(other["units.0.0.weight"], state["units.0.0.weight"])


def test_random_weights_use_the_initialisation_of_the_architecture() -> None:
    state = random_unit_state(parse_backbone("resnet18"), 64, seed=5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        library_state = models.resnet18().state_dict()
    assert torch.equal(state["units.0.0.weight"], library_state["conv1.weight"])
    assert torch.equal(state["units.8.conv2.weight"], library_state["layer4.1.conv2.weight"])
    assert all(not tensor.requires_grad for tensor in state.values())


def test_pretrained_units_are_loaded_and_the_head_is_unchanged(small: Backbone) -> None:
    w0 = dict(small.unit_state_dict())
    assert list(w0) == [name for name in small.state_dict() if name.startswith("units.")]
    other = build_backbone(parse_backbone(SMALL), 5, image_size=32, seed=9)
    head = other.head.weight.clone()
    other.load_pretrained(w0)
    assert torch.equal(other.head.weight, head)
    loaded = other.unit_state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in w0.items())
    del w0["units.3.conv.0.0.weight"]
    with pytest.raises(RuntimeError, match=r"3\.conv\.0\.0\.weight"):
        other.load_pretrained(w0)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("alexnet", 224),
        ("mobilenet_v2(width_mult=0.35)", 224),
        ("inception_v3", 299),
        ("efficientnet_b3", 300),
        ("vit_h_14", 518),
        ("vit_b_16(image_size=96)", 96),
        ("maxvit_t(input_size=(448, 448))", 448),
        ("conv3", 28),
        ("conv4", 84),
    ],
)
def test_the_default_image_size_is_that_of_the_weights(text: str, size: int) -> None:
    assert default_image_size(parse_backbone(text)) == size


@pytest.mark.parametrize(
    ("text", "size", "default_size"),
    [
        ("vit_b_16", 96, 224),
        ("vit_b_16", 230, 224),
        ("vit_b_16(image_size=96)", 224, 96),
        ("inception_v3", 74, 299),
        ("alexnet", 40, 224),
        ("vgg11", 16, 224),
        ("maxvit_t", 96, 224),
        ("conv3", 18, 28),
        ("conv4", 8, 84),
    ],
)
def test_impossible_image_sizes_are_refused_with_the_remedy(text: str, size: int, default_size: int) -> None:
    with pytest.raises(UsageError) as error:
        build_backbone(parse_backbone(text), 5, image_size=size)
    assert str(error.value).startswith(f"backbone {text} does not work with images of {size} px (")
    assert str(error.value).endswith(f"use its default size: --image-size {default_size}")


@pytest.mark.parametrize(
    ("text", "size", "dim"),
    [("inception_v3", 75, 2048), ("conv3(width=256)", 28, 2304), ("conv4(width=256)", 84, 6400), ("vgg11", 32, 4096)],
)
def test_the_number_of_features_depends_on_architecture_and_image_size(text: str, size: int, dim: int) -> None:
    assert feature_dim(parse_backbone(text), size) == dim


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("resnet18(depth=3)", 64, "resnet18(depth=3) cannot be built with these arguments (ResNet.__init__() got"),
        ("mobilenet_v2(width_mult='wide')", 64, "cannot be built with these arguments"),
        ("vit_b_16(image_size=100)", 100, "cannot be built with these arguments (Input shape indivisible"),
        ("conv3(width=0)", 28, "width 0: expected a whole number of channels"),
        ("conv4(depth=2)", 84, "unexpected keyword argument 'depth'"),
        ("resnet18", 0, "image size 0: expected 1 pixel or more"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(text: str, size: int, message: str) -> None:
    with pytest.raises(UsageError) as error:
        build_backbone(parse_backbone(text), 5, image_size=size)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_encoders_import_neither_torchvision_nor_the_compiler() -> None:
    code = (
        "import sys\n"
        "from nbt.models.backbone import build_backbone\n"
        "from nbt.models.backbone_spec import parse_backbone\n"
        "build_backbone(parse_backbone('conv3'), 5, image_size=28)\n"
        "print([name for name in ('torchvision', 'torch._dynamo') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(ENCODER_BUILDERS))
def test_no_unit_of_the_encoders_modifies_its_input(name: str) -> None:
    spec = parse_backbone(name)
    size = default_image_size(spec)
    model = build_backbone(spec, 3, image_size=size)
    hidden = torch.randn(2, 3, size, size)
    for unit in (*model.units, model.neck):
        before = hidden.clone()
        output = unit(hidden)
        assert torch.equal(hidden, before)
        hidden = output
    assert hidden.shape == (2, model.feature_dim)


def test_each_family_can_be_trained_through_its_units() -> None:
    model = build_backbone(parse_backbone("densenet121"), 3, image_size=32).train()
    model(torch.randn(4, 3, 32, 32)).logsumexp(dim=1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_work_of_the_units() -> None:
    """conv4(width=4) pads: 27 weights per filter; InstanceNorm counts 8 times, a pooled element 16 times."""
    first, second, *_ = unit_work(parse_backbone("conv4(width=4)"), 32)
    assert first.products == 32 * 32 * 4 * 27
    assert first.elements == 32 * 32 * 4 * (1 + 8 + 1) + 16 * 16 * 4 * 16
    assert second.products == 16 * 16 * 4 * 36


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16"])
def test_work_is_close_to_published_numbers(name: str) -> None:
    """Billions of multiplications per image, torchvision's documentation."""
    published = {"resnet18": 1.814, "vit_b_16": 17.564}
    total = sum(unit.products for unit in unit_work(parse_backbone(name), 224)) / 1e9
    assert 0.7 * published[name] < total <= published[name] * 1.01
