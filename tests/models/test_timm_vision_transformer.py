"""timm's plain vision transformers: the units of each family reproduce the model, train and resize their positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nbt.errors import UsageError
from nbt.models.backbone import Backbone, build_backbone, default_image_size
from nbt.models.backbone_spec import parse_backbone
from nbt.models.weights import load_pretrained_weights

timm = pytest.importorskip("timm", reason="needs timm, which is an extra")

# The smallest variant of each family, with fewer blocks where it is large: name, arguments, image size, last units.
FAMILIES: list[tuple[str, dict[str, Any], int, tuple[str, ...]]] = [
    ("vit_tiny_patch16_224", {}, 224, ("norm",)),
    ("vit_base_patch16_gap_224", {"depth": 2}, 64, ("norm",)),  # mean of the tokens, no class token
    ("deit_tiny_patch16_224", {}, 64, ("norm",)),
    ("deit_tiny_distilled_patch16_224", {}, 64, ("norm",)),  # a distillation token
    ("deit3_small_patch16_224", {"depth": 2}, 64, ("norm",)),  # no position of the class token
    ("vit_small_patch14_dinov2", {"depth": 2}, 56, ("norm",)),
    ("vit_small_patch14_reg4_dinov2", {"depth": 2}, 56, ("norm",)),  # register tokens
    ("vit_small_patch16_dinov3", {"depth": 2}, 64, ("norm",)),  # rotary positions
    ("vit_base_patch32_clip_224", {"depth": 2}, 64, ("norm",)),  # a normalisation before the blocks
    ("vit_base_patch16_siglip_224", {"depth": 2}, 64, ("norm", "attn_pool")),  # attention pooling
    ("beit_base_patch16_224", {"depth": 2}, 64, ("fc_norm",)),  # relative positions
    ("eva02_tiny_patch14_224", {}, 56, ("fc_norm",)),  # learned and rotary positions
]


@torch.no_grad()
def _library_model(name: str, **arguments: Any) -> nn.Module:
    """Returns a model of timm whose vectors and tokens are not 0 or 1, which would hide that they are missing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = timm.create_model(name, num_classes=3, **arguments).eval()
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model


def _spec_text(name: str, arguments: dict[str, Any]) -> str:
    return f"timm:{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


@pytest.mark.parametrize(("name", "arguments", "size", "last"), FAMILIES, ids=[family[0] for family in FAMILIES])
@torch.no_grad()
def test_the_units_reproduce_the_model(
    name: str, arguments: dict[str, Any], size: int, last: tuple[str, ...], tmp_path: Path
) -> None:
    library_model = _library_model(name, img_size=size, **arguments)
    torch.save(library_model.state_dict(), tmp_path / "w.pth")
    spec = parse_backbone(_spec_text(name, arguments))
    pretrained = load_pretrained_weights(spec, tmp_path / "w.pth", image_size=size)
    model = build_backbone(spec, 5, image_size=size)
    model.load_pretrained(pretrained.w0)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    expected = library_model.forward_head(library_model.forward_features(images), pre_logits=True)
    torch.testing.assert_close(model.features(images), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(expected[0], expected[1])
    blocks = tuple(f"blocks.{index}" for index in range(arguments.get("depth", 12)))
    assert model.unit_names == ("patch_embed", *blocks, *last)
    _check_units(model, images)


def _check_units(model: Backbone, images: torch.Tensor) -> None:
    """Checks that no unit changes its input, and that every unit has parameters that no other has."""
    placed = [id(parameter) for unit in model.units for parameter in unit.parameters()]
    assert len(placed) == len(set(placed))
    assert not list(model.neck.parameters())
    for training in (False, True):
        hidden = images
        for unit in model.units.train(training):
            before = hidden.clone()
            output = unit(hidden)
            assert torch.equal(hidden, before)
            assert list(unit.parameters())
            hidden = output
        assert model.neck(hidden).shape == (len(images), model.feature_dim)


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("timm:vit_tiny_patch16_224", 100, "(not a multiple of its patches of 16 px); use its default size"),
        ("timm:vit_tiny_patch16_224(img_size=96)", 224, "Input height (224) doesn't match model (96)"),
        ("timm:vit_tiny_patch16_224(img_size=96)", 224, "use its default size: --image-size 96"),
        ("timm:vit_tiny_patch16_224(depth=1, global_pool='')", 224, "does not return one vector per image"),
        ("timm:beit_base_patch16_224(depth=2, use_shared_rel_pos_bias=True)", 224, "several blocks share parameters"),
        ("timm:vit_small_patch16_rope_mixed_224(depth=2)", 224, "several blocks share parameters"),
        ("timm:vit_small_patch16_dinov3(depth=1, rope_jitter_coords=2.0)", 256, "random rotary positions"),
        ("timm:eva02_tiny_patch14_224(depth=1, patch_drop_rate=0.5)", 224, "dropped patches"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(text: str, size: int, message: str) -> None:
    with pytest.raises(UsageError) as error:
        build_backbone(parse_backbone(text), 5, image_size=size)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_image_size_of_the_arguments_is_the_default() -> None:
    assert default_image_size(parse_backbone("timm:vit_tiny_patch16_224(img_size=96)")) == 96
    assert default_image_size(parse_backbone("timm:vit_small_patch14_dinov2")) == 518


@pytest.mark.parametrize("text", ["timm:test_vit", "timm:test_vit(img_size=96)"])
def test_positions_are_interpolated_as_timm_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """The library's weights and a file of the model's own size give the same positions for another image size."""
    create = timm.create_model
    torch.save(_library_model("test_vit").state_dict(), tmp_path / "w.pth")
    overlay = {"file": str(tmp_path / "w.pth"), "num_classes": 3}
    expected = create("test_vit", pretrained=True, pretrained_cfg_overlay=overlay, img_size=96).state_dict()
    spec = parse_backbone(text)
    from_file = load_pretrained_weights(spec, tmp_path / "w.pth", image_size=96).w0
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda *names, pretrained, **arguments: create(
            *names, pretrained=pretrained, **({"pretrained_cfg_overlay": overlay} if pretrained else {}), **arguments
        ),
    )
    from_library = load_pretrained_weights(spec, "default", image_size=96).w0
    name = "units.0.part.pos_embed"
    torch.testing.assert_close(from_file[name], expected["pos_embed"])
    assert from_file.keys() == from_library.keys()
    assert all(torch.equal(from_library[key], tensor) for key, tensor in from_file.items())
    own = load_pretrained_weights(parse_backbone("timm:test_vit"), tmp_path / "w.pth", image_size=160).w0
    assert own[name].shape != from_file[name].shape
