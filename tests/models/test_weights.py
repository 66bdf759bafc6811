"""Weights: the library's with its download, random initialisation, and files checked key by key."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision import models

from nbt.errors import NbtError, UsageError
from nbt.models.backbone import build_backbone
from nbt.models.backbone_spec import BackboneSpec, parse_backbone
from nbt.models.state_dict import read_state_dict, write_state_dict
from nbt.models.weights import (
    PretrainedWeights,
    build_source_head,
    hash_weights,
    load_pretrained_weights,
    random_unit_state,
)

State = dict[str, torch.Tensor]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NET = parse_backbone("mobilenet_v2(width_mult=0.25)")
SIZE = 32


@pytest.fixture(scope="module")
def library_model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return models.mobilenet_v2(width_mult=0.25, num_classes=7).eval()


@pytest.fixture
def state(library_model: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in library_model.state_dict().items()}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(content: Any, name: str = "w.pth") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


def _load(path: Path, spec: BackboneSpec = NET, size: int = SIZE) -> PretrainedWeights:
    return load_pretrained_weights(spec, str(path), image_size=size)


def _refusal(path: Path, spec: BackboneSpec = NET, size: int = SIZE) -> str:
    with pytest.raises(UsageError) as error:
        _load(path, spec, size)
    assert "\n" not in str(error.value)
    return str(error.value)


@torch.no_grad()
def _logits(spec: BackboneSpec, pretrained: PretrainedWeights, images: torch.Tensor) -> torch.Tensor:
    """Returns the logits of the source model, computed by units and source head."""
    model = build_backbone(spec, 2, image_size=images.shape[-1], seed=99)
    model.load_pretrained(pretrained.w0)
    logits: torch.Tensor = build_source_head(spec, pretrained)(model.forward_units(images))
    return logits


def test_a_file_reproduces_the_saved_model(library_model: nn.Module, state: State, save: Callable[..., Path]) -> None:
    pretrained = _load(save(state))
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(_logits(NET, pretrained, images), library_model(images))
    assert (pretrained.mean, pretrained.std) == IMAGENET
    assert pretrained.w0.keys() == random_unit_state(NET, SIZE, 0).keys()
    assert not any(tensor.requires_grad for tensor in pretrained.w0.values())


@pytest.mark.parametrize("text", ["squeezenet1_1", "maxvit_t", "inception_v3"])
def test_classifiers_of_all_kinds_are_loaded(text: str, save: Callable[..., Path]) -> None:
    spec = parse_backbone(text)
    size = {"maxvit_t": 224, "inception_v3": 80}.get(spec.name, 64)
    special = {"transform_input": True, "init_weights": True} if spec.name == "inception_v3" else {}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = models.get_model(spec.name, **spec.arguments, **special, num_classes=4).eval()
        for parameter in model.parameters():
            if parameter.ndim < 2 or len(parameter) == 4:
                nn.init.normal_(parameter, std=0.1)
        images = torch.randn(1, 3, size, size)
    pretrained = _load(save(model.state_dict()), spec, size)
    with torch.no_grad():
        expected = model(images)
    assert torch.equal(_logits(spec, pretrained, images), expected)
    assert expected.std() > 0


def _wrapped(state: State) -> Any:
    return {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}


def _without_counters(state: State) -> Any:
    return {name: tensor for name, tensor in state.items() if "num_batches" not in name}


def _as_units(state: State) -> Any:
    model = build_backbone(NET, 7, image_size=SIZE)
    model.load_pretrained(_load_direct(state))
    return model.state_dict()


def _load_direct(state: State) -> State:
    keys = random_unit_state(NET, SIZE, 0)
    return {key: state[f"features.{key.removeprefix('units.')}"] for key in keys}


@pytest.mark.parametrize("shape", [dict, _wrapped, _without_counters, _as_units, lambda state: {"model": state}])
def test_common_forms_of_files_are_read(shape: Callable[[State], Any], state: State, save: Callable[..., Path]) -> None:
    w0 = _load(save(shape(state))).w0
    assert w0.keys() == _load_direct(state).keys()
    assert all(torch.equal(w0[key], tensor) for key, tensor in _load_direct(state).items())


def test_safetensors_are_read(state: State, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(state, tmp_path / "w.safetensors")
    pretrained = _load(tmp_path / "w.safetensors")
    assert all(torch.equal(pretrained.w0[key], tensor) for key, tensor in _load_direct(state).items())
    assert pretrained.source_head is not None


STALE = ("units.0.1", "units.5.conv.1.1")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_file_states_which_statistics_are_to_be_re_estimated(
    state: State, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, units = tmp_path / name, _load_direct(state)
    write_state_dict(path, units, STALE)
    pretrained = _load(path)
    assert pretrained.stale_statistics == STALE
    assert all(torch.equal(pretrained.w0[key], tensor) for key, tensor in units.items())
    assert hash_weights(units, STALE) != hash_weights(units)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert not caplog.text


def test_other_programs_read_the_files_as_plain_state_dicts(state: State, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    units = _load_direct(state)
    for name, read in (("w.pth", lambda path: torch.load(path, weights_only=True)), ("w.safetensors", load_file)):
        write_state_dict(tmp_path / name, units, STALE)
        plain = read(tmp_path / name)
        assert plain.keys() == units.keys()
        model = build_backbone(NET, 7, image_size=SIZE)
        missing, unexpected = model.load_state_dict(plain, strict=False)
        assert (missing, unexpected) == (["head.weight", "head.bias"], [])


def test_layers_are_named_as_in_the_file(state: State, tmp_path: Path) -> None:
    write_state_dict(tmp_path / "w.pth", state, ["features.0.1"])
    assert _load(tmp_path / "w.pth").stale_statistics == ("units.0.1",)
    write_state_dict(tmp_path / "w.pth", state, ["features.0.0"])
    assert "running statistics of features.0.0, which is no BatchNorm layer" in _refusal(tmp_path / "w.pth")
    damaged = {**state}
    write_state_dict(tmp_path / "w.pth", damaged, ["features.0.1"])
    content = torch.load(tmp_path / "w.pth")
    content._metadata["nbt"]["stale_statistics"] = 3
    torch.save(content, tmp_path / "w.pth")
    assert "is not a list of names" in _refusal(tmp_path / "w.pth")


def test_unmarked_statistics_of_new_layers_are_reported(
    state: State, save: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Files of `nbt inject` before the mark have them; they cannot be told from layers that are meant to do nothing."""
    assert _load(save(state)).stale_statistics == ()
    assert "BatchNorm layers have the running statistics of new layers, mean 0 and variance 1" in caplog.text
    caplog.clear()
    _load(save({name: tensor + 0.5 if "running_mean" in name else tensor for name, tensor in state.items()}))
    assert not caplog.text


def test_half_precision_is_converted(state: State, save: Callable[..., Path]) -> None:
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    w0 = _load(save(half)).w0
    fresh = random_unit_state(NET, SIZE, 0)
    assert {key: tensor.dtype for key, tensor in w0.items()} == {key: tensor.dtype for key, tensor in fresh.items()}
    assert torch.equal(w0["units.0.0.weight"], half["features.0.0.weight"].float())


def _no_head(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}


def _no_bias(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if name != "classifier.1.bias"}


def _narrow_head(state: State) -> State:
    return state | {"classifier.1.weight": torch.zeros(7, 3)}


def _deep_head(state: State) -> State:
    return _no_head(state) | {"classifier.1.0.weight": torch.zeros(9, 1280), "classifier.1.2.weight": torch.zeros(7, 9)}


def _nan_head(state: State) -> State:
    return state | {"classifier.1.bias": torch.full((7,), torch.nan)}


@pytest.mark.parametrize("change", [_no_head, _no_bias, _narrow_head, _deep_head, _nan_head])
def test_units_are_taken_from_files_with_another_classifier_or_none(
    change: Callable[[State], State], state: State, save: Callable[..., Path]
) -> None:
    pretrained = _load(save(change(state)))
    assert torch.equal(pretrained.w0["units.0.0.weight"], state["features.0.0.weight"])
    assert pretrained.source_head is None
    with pytest.raises(UsageError, match="came without a classifier"):
        build_source_head(NET, pretrained)


def test_auxiliary_heads_are_ignored(save: Callable[..., Path]) -> None:
    with torch.random.fork_rng():
        state = models.googlenet(init_weights=False, num_classes=3).state_dict()
    assert any(name.startswith("aux1.") for name in state)
    w0 = _load(save(state), parse_backbone("googlenet"), 64).w0
    assert torch.equal(w0["units.0.1.0.conv.weight"], state["conv1.conv.weight"])


def test_legacy_names_of_densenet_are_read(save: Callable[..., Path]) -> None:
    spec = parse_backbone("densenet121")
    with torch.random.fork_rng():
        state = models.densenet121(num_classes=2).state_dict()
    legacy = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): t for name, t in state.items()}
    legacy = {name: tensor for name, tensor in legacy.items() if "num_batches" not in name}
    assert "features.denseblock1.denselayer1.norm.1.weight" in legacy
    w0 = _load(save(legacy), spec, 32).w0
    assert torch.equal(w0["units.1.layer.conv2.weight"], state["features.denseblock1.denselayer1.conv2.weight"])
    assert int(w0["units.1.layer.norm1.num_batches_tracked"]) == 0


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Callable[[State], Path]:
    """Replaces the reading of a file, which would have a third of a gigabyte."""

    def replace_reading(state: State) -> Path:
        monkeypatch.setattr("nbt.models.weights.read_state_dict", lambda path: (state, ()))
        return Path("vit.pth")

    return replace_reading


VIT = parse_backbone("vit_b_32(image_size=64)")


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = models.vit_b_32(image_size=64, num_classes=4).eval()
        nn.init.normal_(model.heads.head.weight, std=0.1)
    return model


def test_legacy_names_of_vit_are_read(vit: nn.Module, read: Callable[[State], Path]) -> None:
    legacy = {
        n.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): t
        for n, t in vit.state_dict().items()
    }
    assert "encoder.layers.encoder_layer_0.mlp.linear_1.weight" in legacy
    pretrained = _load(read(legacy), VIT, 64)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = vit(images)
    assert torch.equal(_logits(VIT, pretrained, images), expected)
    assert expected.std() > 0


def test_missing_reshaped_unknown_and_infinite_are_listed(state: State, save: Callable[..., Path]) -> None:
    for index in range(8):
        state[f"head2.{index}"] = torch.zeros(2)
    del state["features.0.0.weight"]
    state["features.0.1.bias"] = torch.zeros(3)
    state["features.0.1.num_batches_tracked"] = torch.tensor(1.5)
    state["features.2.conv.0.0.weight"][0] = torch.inf
    path = save(state)
    assert _refusal(path) == (
        f"weights {path} does not fit mobilenet_v2(width_mult=0.25): 1 missing: features.0.0.weight; "
        "2 of another shape: features.0.1.bias (expected 8, found 3), "
        "features.0.1.num_batches_tracked (expected a single number of int64, found a single number); "
        "8 unknown: head2.0, head2.1, head2.2, head2.3, head2.4 and 3 more; "
        "1 not finite: features.2.conv.0.0.weight"
    )


def test_another_architecture_is_refused(state: State, save: Callable[..., Path]) -> None:
    path = save(state)
    assert "of another shape: features.0.0.weight (expected 32x3x3x3, found 8x3x3x3)" in _refusal(
        path, parse_backbone("mobilenet_v2")
    )
    assert "missing: conv1.weight" in _refusal(path, parse_backbone("resnet18"))
    assert "12 missing: block1.0.weight, block1.0.bias" in _refusal(path, parse_backbone("conv3"), 28)


def test_units_of_another_architecture_are_refused(save: Callable[..., Path]) -> None:
    path = save(build_backbone(parse_backbone("conv3(width=4)"), 2, image_size=28).state_dict())
    assert "of another shape: units.0.0.weight (expected 8x3x3x3, found 4x3x3x3)" in _refusal(
        path, parse_backbone("conv3(width=8)"), 28
    )


def test_positions_for_another_image_size_are_refused(vit: nn.Module, read: Callable[[State], Path]) -> None:
    path = read(vit.state_dict() | {"encoder.pos_embedding": torch.zeros(1, 10, 768)})
    message = _refusal(path, VIT, 64)
    assert message.endswith(
        "VIT: 1 of another shape: encoder.pos_embedding (expected 1x5x768, found 1x10x768)".replace("VIT", VIT.text)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not a state dict"),
        ({}, "holds nothing, not a state dict"),
        ({"lr": 0.1}, "holds 'lr': a float, so it is not a state dict; save model.state_dict()"),
        ({3: torch.zeros(1)}, "holds 3: a Tensor, so it is not a state dict"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "a is a sparse, quantised or empty tensor"),
        (torch.zeros(3), "holds a Tensor, not a state dict"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_other_contents_are_refused(content: Any, message: str, save: Callable[..., Path]) -> None:
    path = save(content)
    assert _refusal(path).startswith(f"weights {path}: {message}")


class CodeOnLoad:
    def __reduce__(self) -> Any:
        return os.system, ("touch code-was-run",)


@pytest.mark.parametrize("content", [nn.Linear(2, 2), CodeOnLoad(), {"state_dict": CodeOnLoad()}])
def test_other_objects_are_refused_without_running_code(
    content: Any, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(content)
    assert _refusal(path).endswith("(it holds objects other than tensors, or is damaged)")
    assert not (tmp_path / "code-was-run").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 torn", b"\x80\x02torn"])
def test_foreign_files_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    message = _refusal(path)
    assert message.startswith(f"weights {path}: not a file of tensors that can be read safely (")
    assert not re.search(r"\(('?\d+|EOFError|KeyError|IndexError)'?\)$", message), "the reason is in words"


def test_truncated_and_missing_files_are_refused(state: State, save: Callable[..., Path], tmp_path: Path) -> None:
    path = save(state)
    path.write_bytes(path.read_bytes()[:-5000])
    assert "not a file of tensors that can be read safely" in _refusal(path)
    assert _refusal(tmp_path / "lost.pth") == f"weights {tmp_path / 'lost.pth'}: no such file"
    assert _refusal(tmp_path) == f"weights {tmp_path}: no such file"


@given(content=st.one_of(st.binary(max_size=300), st.binary(max_size=60).map(lambda tail: b"\x80\x02}q\x00" + tail)))
def test_any_bytes_are_a_state_dict_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pth"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"^weights .*any\.pth: "):
        read_state_dict(path)


def test_none_is_the_random_initialisation_of_the_seed() -> None:
    pretrained = load_pretrained_weights(NET, "none", image_size=SIZE, seed=4)
    fresh = random_unit_state(NET, SIZE, 4)
    assert all(torch.equal(tensor, fresh[key]) for key, tensor in pretrained.w0.items())
    assert not torch.equal(
        pretrained.w0["units.0.0.weight"], load_pretrained_weights(NET, "none", image_size=SIZE).w0["units.0.0.weight"]
    )
    assert pretrained.source_head is None


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("resnet18", 64, IMAGENET),
        ("efficientnet_v2_l", 64, ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
        ("conv3", 28, ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
    ],
)
@pytest.mark.filterwarnings("error")
def test_images_are_normalised_as_the_weights_expect(text: str, size: int, expected: Any) -> None:
    pretrained = load_pretrained_weights(parse_backbone(text), "none", image_size=size)
    assert (pretrained.mean, pretrained.std) == expected


def test_an_impossible_image_size_is_refused_before_reading_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not work with images of 96 px"):
        load_pretrained_weights(parse_backbone("vit_b_16"), str(tmp_path / "lost.pth"), image_size=96)


Publish = Callable[..., str]


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Publish:
    """Publishes a state dict at the address from which torchvision downloads, with torchvision's own checks."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))

    def put(name: str, state: State, *, digest: str | None = None) -> str:
        torch.save(state, tmp_path / "published")
        digest = digest or hashlib.sha256((tmp_path / "published").read_bytes()).hexdigest()[:8]
        target = tmp_path / f"{name}-{digest}.pth"
        (tmp_path / "published").rename(target)
        monkeypatch.setattr(models.get_model_weights(name).DEFAULT.value, "url", target.as_uri())
        return target.as_uri()

    return put


def test_default_weights_are_fetched_and_fit(publish: Publish) -> None:
    spec = parse_backbone("squeezenet1_1(dropout=0.1)")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = models.squeezenet1_1().eval()
        images = torch.randn(1, 3, 64, 64)
    publish("squeezenet1_1", model.state_dict())
    pretrained = load_pretrained_weights(spec, "default", image_size=64)
    with torch.no_grad():
        assert torch.equal(_logits(spec, pretrained, images), model(images))


def test_default_weights_with_legacy_names_are_read(publish: Publish) -> None:
    with torch.random.fork_rng():
        state = models.densenet121().state_dict()
    legacy = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): t for name, t in state.items()}
    publish("densenet121", {name: tensor for name, tensor in legacy.items() if "num_batches" not in name})
    w0 = load_pretrained_weights(parse_backbone("densenet121"), "default", image_size=32).w0
    assert torch.equal(w0["units.1.layer.conv2.weight"], state["features.denseblock1.denselayer1.conv2.weight"])


def test_missing_and_damaged_downloads_raise(publish: Publish) -> None:
    spec = parse_backbone("squeezenet1_1")
    with torch.random.fork_rng():
        state = models.squeezenet1_1().state_dict()
    url = publish("squeezenet1_1", state, digest="0badc0de")
    with pytest.raises(NbtError, match=f"cannot be fetched from {url} .*invalid hash.*give --weights FILE") as error:
        load_pretrained_weights(spec, "default", image_size=64)
    assert not isinstance(error.value, UsageError)
    Path(url.removeprefix("file://")).unlink()
    with pytest.raises(NbtError, match=r"the weights of squeezenet1_1 cannot be fetched from .*No such file"):
        load_pretrained_weights(spec, "default", image_size=64)


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("conv3", 28, "backbone conv3 has no library weights; give --weights FILE, or --weights none"),
        ("mobilenet_v2(width_mult=0.35)", 32, "they are for mobilenet_v2 without arguments that change shapes"),
        ("vit_b_32(image_size=64)", 64, "they are for vit_b_32 without arguments that change shapes"),
    ],
)
def test_there_are_no_default_weights_for_other_shapes(
    text: str, size: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_backbone(text)
    monkeypatch.setattr(
        "torchvision.models._api.WeightsEnum.get_state_dict",
        lambda *_, **__: pytest.fail("the weights were downloaded"),
    )
    with pytest.raises(UsageError) as error:
        load_pretrained_weights(spec, "default", image_size=size)
    assert message in str(error.value)


SHARED = [
    ("mobilenet_v2", "mobilenet_v2-imagenet.pth", True),
    ("mobilenet_v2(width_mult=0.35)", "mobilenet_v2_035-imagenet.pth", False),
    ("squeezenet1_0", "squeezenet1_0-imagenet.pth", True),
]


@pytest.mark.parametrize(("text", "file", "with_head"), SHARED)
def test_real_weights_fit(shared: Path, text: str, file: str, with_head: bool) -> None:
    pretrained = _load(shared / "weights" / file, parse_backbone(text), 96)
    assert (pretrained.source_head is not None) == with_head
    if pretrained.source_head is not None:
        assert len(pretrained.source_head["head.weight"]) == 1000


def test_real_weights_classify_birds_as_birds(shared: Path) -> None:
    """More than 80 % of the images are classified as one of ImageNet's 59 bird classes."""
    import numpy as np
    from PIL import Image

    folders = sorted((shared / "data" / "CUB_200_2011" / "images").iterdir())[:40]
    photographs = [Image.open(sorted(folder.glob("*.jpg"))[0]).convert("RGB").resize((128, 128)) for folder in folders]
    spec = parse_backbone("mobilenet_v2")
    pretrained = _load(shared / "weights" / "mobilenet_v2-imagenet.pth", spec, 128)
    pixels = torch.from_numpy(np.stack([np.asarray(photograph) for photograph in photographs])).permute(0, 3, 1, 2)
    images = (pixels / 255 - torch.tensor(pretrained.mean).view(3, 1, 1)) / torch.tensor(pretrained.std).view(3, 1, 1)
    predictions = _logits(spec, pretrained, images).argmax(dim=1).tolist()
    birds = {*range(7, 25), *range(80, 101), *range(127, 147)}
    assert sum(label in birds for label in predictions) > 0.8 * len(predictions)
