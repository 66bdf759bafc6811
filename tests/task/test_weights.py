from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from nbt.errors import NbtError, UsageError
from nbt.task import backbones
from nbt.task.backbone_names import parse_backbone
from nbt.task.backbones import build_backbone, build_model
from nbt.task.weights import fresh_state, load_w0

SPEC = parse_backbone("mobilenet_v2(width_mult=0.1)")
SIZE = 32


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A state dict in torchvision's names."""
    return {name: tensor.clone() for name, tensor in build_model(SPEC, seed=5).state_dict().items()}


@pytest.fixture(scope="module")
def units() -> dict[str, torch.Tensor]:
    """The units' state that belongs to it."""
    return build_backbone(SPEC, 2, image_size=SIZE, seed=5).unit_state()


def load(path: Path, text: str = SPEC.text, size: int = SIZE) -> dict[str, torch.Tensor]:
    return load_w0(parse_backbone(text), str(path), image_size=size).w0


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_a_torchvision_file_fills_the_units(
    tmp_path: Path, state: dict[str, torch.Tensor], units: dict[str, torch.Tensor]
) -> None:
    assert equal(load(save(tmp_path / "w.pth", state)), units)


@pytest.mark.parametrize("form", ["wrapped", "data parallel", "safetensors", "no head", "another head", "units"])
def test_the_usual_forms_of_files_are_read(
    tmp_path: Path, state: dict[str, torch.Tensor], units: dict[str, torch.Tensor], form: str
) -> None:
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "wrapped":
        save(path, {"state_dict": state, "epoch": 3})
    elif form == "data parallel":
        save(path, {f"module.{name}": tensor for name, tensor in state.items()})
    elif form == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    elif form == "no head":
        save(path, {name: tensor for name, tensor in state.items() if not name.startswith("classifier")})
    elif form == "another head":
        save(path, {**state, "classifier.1.weight": torch.zeros(7, 1280), "classifier.1.bias": torch.zeros(7)})
    else:
        save(path, {**units, "head.weight": torch.zeros(7, 1280)})
    assert equal(load(path), units)


def test_counters_of_batchnorm_may_be_missing(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    older = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert "units.0.1.num_batches_tracked" in load(save(tmp_path / "w.pth", older))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features.0.0.weight": None}, ["1 of", "missing: features.0.0.weight"]),
        ({"features.0.0.weight": torch.zeros(3)}, ["misshapen", "features.0.0.weight is 3, not 8x3x3x3"]),
        ({"layer9.weight": torch.zeros(3)}, ["not of this architecture: layer9.weight"]),
        ({"features.0.1.weight": torch.full((8,), float("nan"))}, ["not finite: features.0.1.weight"]),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, state: dict[str, torch.Tensor], change: dict[str, torch.Tensor | None], words: list[str]
) -> None:
    changed = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
    path = save(tmp_path / "w.pth", changed)
    with pytest.raises(UsageError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_weights_of_another_architecture_list_a_few_keys_and_the_count(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(UsageError, match=r"\d+ of \d+ missing: conv1\.weight.* and \d+ more") as caught:
        load(save(tmp_path / "w.pth", state), "resnet18")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil-was-here",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "a list, not a state dict"),
        ({}, "not a state dict"),
        ({"a": 1}, "'a' is a int, not a tensor"),
        (Evil(), "cannot|can be read safely"),
    ],
)
def test_files_that_are_no_state_dicts_are_refused_and_nothing_in_them_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words):
        load(save(tmp_path / "w.pth", content))
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02}q\x00"])
def test_torn_files_are_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=name):
            load(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load(tmp_path / "nothing.pth")


def test_none_is_a_random_initialisation_by_its_seed() -> None:
    one, again, other = (load_w0(SPEC, "none", image_size=SIZE, seed=seed).w0 for seed in (1, 1, 2))
    assert equal(one, again)
    assert not equal(one, other)
    assert equal(one, fresh_state(SPEC, SIZE, 1))


@pytest.mark.parametrize(("text", "size"), [("vit_b_32", 64), ("inception_v3", 40), ("alexnet", 16)])
def test_impossible_image_sizes_are_refused_with_the_backbones_own(text: str, size: int) -> None:
    with pytest.raises(UsageError, match=f"--image-size {size}.*its own is"):
        load_w0(parse_backbone(text), "none", image_size=size)


def test_backbones_without_library_weights_say_so() -> None:
    with pytest.raises(UsageError, match="--weights FILE"):
        load_w0(parse_backbone("conv4"), "default", image_size=84)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the URL under which it is served, on this machine only."""
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def serve_as_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: tuple[Path, str], state: dict[str, torch.Tensor], name: str
) -> None:
    """Lets torchvision fetch mobilenet_v2's weights from the local server, by its own code."""
    from torchvision.models import MobileNet_V2_Weights

    folder, url = server
    torch.save(state, folder / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))

    class Library:
        url = ""
        transforms = MobileNet_V2_Weights.DEFAULT.transforms

        def get_state_dict(self, **options: Any) -> Any:
            return torch.hub.load_state_dict_from_url(f"{url}/{name}", **options)

    for module in (backbones, __import__("nbt.task.weights", fromlist=["x"])):
        monkeypatch.setattr(module, "library_weights", lambda spec: Library())


def test_library_weights_are_fetched(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    server: tuple[Path, str],
    state: dict[str, torch.Tensor],
    units: dict[str, torch.Tensor],
) -> None:
    serve_as_library(monkeypatch, tmp_path, server, state, "weights.pth")
    assert equal(load_w0(SPEC, "default", image_size=SIZE).w0, units)


def test_library_weights_with_a_wrong_checksum_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: tuple[Path, str], state: dict[str, torch.Tensor]
) -> None:
    serve_as_library(monkeypatch, tmp_path, server, state, "weights-00000000.pth")
    with pytest.raises(NbtError, match=r"cannot be fetched.*--weights FILE"):
        load_w0(SPEC, "default", image_size=SIZE)


def test_a_server_that_is_not_there_is_an_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: tuple[Path, str], state: dict[str, torch.Tensor]
) -> None:
    serve_as_library(monkeypatch, tmp_path, server, state, "weights.pth")
    (server[0] / "weights.pth").unlink()
    with pytest.raises(NbtError, match=r"cannot be fetched.*--weights none") as caught:
        load_w0(SPEC, "default", image_size=SIZE)
    assert caught.value.exit_code == 1


def test_library_weights_of_another_width_are_not_these(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: tuple[Path, str], state: dict[str, torch.Tensor]
) -> None:
    serve_as_library(monkeypatch, tmp_path, server, state, "weights.pth")
    with pytest.raises(UsageError, match="no library weights: with these arguments"):
        load_w0(parse_backbone("mobilenet_v2(width_mult=0.25)"), "default", image_size=SIZE)


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("mobilenet_v2", "mobilenet_v2-imagenet.pth"),
        ("mobilenet_v2(width_mult=0.35)", "mobilenet_v2_035-imagenet.pth"),
        ("squeezenet1_0", "squeezenet1_0-imagenet.pth"),
    ],
)
def test_real_imagenet_weights_load(shared: Path, text: str, file: str) -> None:
    loaded = load_w0(parse_backbone(text), str(shared / "weights" / file), image_size=96)
    assert loaded.mean == (0.485, 0.456, 0.406)
    assert any(tensor.ndim == 4 and tensor.std() > 0.01 for tensor in loaded.w0.values())


def test_real_weights_classify_real_birds_as_birds(shared: Path) -> None:
    """The units, in order, with the file's own head: ImageNet's birds are the classes 7-24, 80-100 and 127-146."""
    from nbt.task.images import decode_images
    from nbt.task.units import decompose

    model = build_model(parse_backbone("mobilenet_v2"), seed=0)
    model.load_state_dict(torch.load(shared / "weights" / "mobilenet_v2-imagenet.pth", weights_only=True))
    parts = decompose(model)
    files = sorted((shared / "data" / "CUB_200_2011" / "images").glob("0*/*_0000.jpg"))[:40]
    pixels = torch.from_numpy(decode_images(files, 128, cache=False)[0].array).permute(0, 3, 1, 2) / 255
    hidden = (pixels - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    with torch.no_grad():
        for _, unit in parts.units:
            hidden = unit.eval()(hidden)
        classes = parts.source_head.eval()(hidden).argmax(dim=1).tolist()
    birds = [c for c in classes if 7 <= c <= 24 or 80 <= c <= 100 or 127 <= c <= 146]
    assert len(files) == 40
    assert len(birds) > 0.8 * len(classes)
