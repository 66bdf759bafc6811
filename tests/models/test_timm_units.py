"""timm's models: chains of modules are read as units, others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nbt.errors import NbtError, UsageError
from nbt.models.backbone import build_backbone, default_image_size
from nbt.models.backbone_spec import parse_backbone
from nbt.models.weights import load_pretrained_weights

timm = pytest.importorskip("timm", reason="needs timm, which is an extra")


@pytest.mark.parametrize(
    ("name", "size", "n_units"),
    [
        ("resnet18", 64, 9),
        ("mobilenetv3_small_050", 64, 14),
        ("convnext_atto", 64, 16),
        ("regnetx_002", 64, 14),
        ("test_nfnet", 64, None),
    ],
)
@torch.no_grad()
def test_units_and_neck_reproduce_the_model_exactly(name: str, size: int, n_units: int | None, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        library_model = timm.create_model(name, num_classes=3).eval()
        for parameter in library_model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        images = torch.randn(2, 3, size, size)
    torch.save(library_model.state_dict(), tmp_path / "w.pth")
    spec = parse_backbone(f"timm:{name}(drop_rate=0.1)")
    pretrained = load_pretrained_weights(spec, tmp_path / "w.pth", image_size=size)
    model = build_backbone(spec, 5, image_size=size)
    model.load_pretrained(pretrained.w0)
    expected = library_model.forward_head(library_model.forward_features(images), pre_logits=True)
    assert torch.equal(model.features(images), expected)
    assert not torch.allclose(expected[0], expected[1])
    assert (model.dropout.p, len(model.unit_names)) == (0.1, n_units or model.n_units)
    hidden = images
    for unit in model.units:
        before = hidden.clone()
        output = unit(hidden)
        assert torch.equal(hidden, before)
        assert list(unit.parameters())
        hidden = output
    assert not list(model.neck.parameters())


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("timm:cait_xxs24_224", 224, "cannot be read as ordered units; use another architecture"),
        ("timm:resnet19", 64, "timm has no model 'resnet19'; did you mean resnet18"),
        ("timm:resnet18(depth=3)", 64, "cannot be built with these arguments"),
        ("timm:resnet18(drop_rate='a')", 64, "drop_rate 'a' is not a share, 0 or more and below 1"),
        ("timm:vgg11", 8, "does not work with images of 8 px ("),
    ],
)
def test_unsupported_models_are_refused(text: str, size: int, message: str) -> None:
    with pytest.raises(UsageError) as error:
        build_backbone(parse_backbone(text), 5, image_size=size)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_unit_that_modifies_its_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbt.models import timm_units

    class InPlaceUnit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return self.conv(maps.relu_())  # type: ignore[no-any-return]

    monkeypatch.setattr(timm_units, "build_timm_model", lambda *_: nn.Sequential(nn.Conv2d(3, 3, 1), InPlaceUnit()))
    with pytest.raises(UsageError, match="timm's module '1' changes its input in place"):
        timm_units._find_chain(parse_backbone("timm:in_place"), 8)


def test_timm_image_size_and_statistics_are_used() -> None:
    spec = parse_backbone("timm:efficientnet_b1")
    assert default_image_size(spec) == timm.get_pretrained_cfg("efficientnet_b1").input_size[-1] != 224
    assert load_pretrained_weights(parse_backbone("timm:convnext_atto"), "none", image_size=64).mean == (
        0.485,
        0.456,
        0.406,
    )
    assert load_pretrained_weights(parse_backbone("timm:resnetv2_50x1_bit"), "none", image_size=64).mean == (
        0.5,
        0.5,
        0.5,
    )


def test_default_weights_are_loaded_by_timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    create = timm.create_model
    with torch.random.fork_rng():
        library_model = create("resnet18").eval()
    torch.save(library_model.state_dict(), tmp_path / "published.pth")
    file = tmp_path / "published.pth"

    def from_file(name: str, *, pretrained: bool, **arguments: Any) -> nn.Module:
        model: nn.Module = create(name, pretrained=pretrained, pretrained_cfg_overlay={"file": str(file)}, **arguments)
        return model

    monkeypatch.setattr(timm, "create_model", from_file)
    spec = parse_backbone("timm:resnet18")
    w0 = load_pretrained_weights(spec, "default", image_size=64).w0
    assert torch.equal(w0["units.8.conv2.weight"], library_model.layer4[1].conv2.weight)
    file.unlink()
    with pytest.raises(NbtError, match="timm's weights of timm:resnet18 cannot be loaded") as error:
        load_pretrained_weights(spec, "default", image_size=64)
    assert not isinstance(error.value, UsageError)


def test_a_timm_model_without_weights_is_refused() -> None:
    spec = parse_backbone("timm:mobilenetv3_large_075")
    with pytest.raises(
        UsageError, match="backbone timm:mobilenetv3_large_075 has no library weights; give --weights FILE"
    ):
        load_pretrained_weights(spec, "default", image_size=64)
