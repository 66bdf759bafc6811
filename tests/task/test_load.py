from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nbt.errors import UsageError
from nbt.models.backbone_spec import parse_backbone
from nbt.task.load import load_candidate, load_task
from nbt.task.options import check_task_options
from nbt.task.summary import dataset_summary
from nbt.task.task import Task
from tests.data.pictures import save_classes, save_cub


@dataclass(frozen=True)
class Weights:
    """Stands in for `PretrainedWeights`."""

    w0: dict[str, Any]
    mean: tuple[float, float, float] = (0.4, 0.5, 0.6)
    std: tuple[float, float, float] = (0.1, 0.2, 0.3)
    source_head: Any = "its classifier"
    source_means: Any = "its class means"
    stale_statistics: tuple[str, ...] = ("units.0",)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Replaces the weights by small ones and records the requests."""
    calls: list[tuple[str, str, int]] = []

    def load_pretrained_weights(spec: Any, weights: str, *, image_size: int) -> Weights:
        calls.append((spec.text, weights, image_size))
        return Weights({"units.0.weight": 1.0})

    monkeypatch.setitem(
        sys.modules, "nbt.models.weights", SimpleNamespace(load_pretrained_weights=load_pretrained_weights)
    )
    monkeypatch.setitem(sys.modules, "nbt.models.backbone", SimpleNamespace(default_image_size=lambda spec: 32))
    return calls


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    return save_classes(tmp_path / "animals", {"ant": 20, "bee": 10, "cow": 30})


def test_a_task_from_a_folder(animals: Path, requests: list[tuple[str, str, int]]) -> None:
    calls: list[tuple[str, int, int]] = []
    task = load_task(animals, image_size=16, seed=3, progress=lambda *call: calls.append(call))
    assert (task.dataset, task.class_names, task.n_classes) == (str(animals), ("ant", "bee", "cow"), 3)
    assert task.images.array.shape == (60, 16, 16, 3) and task.image_size == 16
    assert np.bincount(task.labels).tolist() == [20, 10, 30]
    assert [len(part) for part in (task.split.train, task.split.val, task.split.test)] == [36, 12, 12]
    assert (task.backbone, task.weights) == (parse_backbone("mobilenet_v2"), "default")
    assert (task.mean, task.std, task.w0) == ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3), {"units.0.weight": 1.0})
    assert (task.source_head, task.source_means) == ("its classifier", "its class means")
    assert task.stale_statistics == ("units.0",)
    assert (task.mirror, task.seed, task.data_dir, task.classes, task.shots) == (True, 3, None, None, None)
    assert requests == [("mobilenet_v2", "default", 16)]
    assert calls[-1] == ("decoding images", 60, 60)


def test_the_split_seed_changes_validation_but_not_test(animals: Path, requests: list[Any]) -> None:
    task = load_task(animals, image_size=16)
    other = task.with_split_seed(1)
    assert other.split.val.tolist() != task.split.val.tolist()
    assert other.split.test.tolist() == task.split.test.tolist()
    assert load_task(animals, image_size=16, seed=1).split.val.tolist() == other.split.val.tolist()
    assert len(task.train_on_all().split.train) == 48


def test_a_pickled_task_holds_paths_instead_of_images(animals: Path, requests: list[Any]) -> None:
    task = load_task(animals, image_size=64)
    packed = pickle.dumps(dataclasses.replace(task, w0={}))
    assert len(packed) < 10_000 < task.images.nbytes
    again: Task = pickle.loads(packed)
    np.testing.assert_array_equal(again.images.array, task.images.array)


@pytest.mark.parametrize(
    ("dataset", "backbone", "image_size", "expected"),
    [
        ("digits", None, None, 28),
        ("digits", None, 20, 20),
        ("digits", "mobilenet_v2", None, 32),
    ],
)
def test_the_image_size_of_a_dataset_applies_to_its_default_backbone(
    requests: list[tuple[str, str, int]], dataset: str, backbone: str | None, image_size: int | None, expected: int
) -> None:
    task = load_task(dataset, backbone=backbone, image_size=image_size)
    assert task.image_size == expected == requests[0][2]
    assert task.mirror is False


def test_digits(requests: list[tuple[str, str, int]]) -> None:
    task = load_task("digits")
    assert (task.class_names, task.backbone.text, len(task.labels)) == (tuple("56789"), "conv3", 896)
    facts = dataset_summary(task)
    assert (facts["train_images"], facts["validation_images"], facts["test_images"]) == (538, 179, 179)


def test_default_weights_of_encoders_come_from_the_provider(requests: list[Any]) -> None:
    calls: list[tuple[str, str, int]] = []

    def pretrained(spec: Any, dataset: str, image_size: int) -> Any:
        calls.append((spec.text, dataset, image_size))
        return Weights({"provided": 2.0}) if spec.name == "conv3" else None

    assert load_task("digits", pretrained=pretrained).w0 == {"provided": 2.0}
    assert requests == []
    loaded = {"units.0.weight": 1.0}
    assert load_task("digits", backbone="conv4", pretrained=pretrained).w0 == loaded
    assert calls == [("conv3", "digits", 28), ("conv4", "digits", 32)]
    assert load_task("digits", weights="none", pretrained=pretrained).w0 == loaded
    assert load_task("digits", backbone="resnet18", pretrained=pretrained).w0 == loaded
    assert len(calls) == 2


def test_official_splits_and_data_dir(tmp_path: Path, requests: list[Any]) -> None:
    save_cub(tmp_path / "CUB_200_2011", classes=3, images=6)
    task = load_task("cub", data_dir=tmp_path, image_size=16)
    assert [len(part) for part in (task.split.train, task.split.val, task.split.test)] == [6, 3, 9]
    assert (task.dataset, task.data_dir) == ("cub", str(tmp_path))
    assert task.class_names[0] == "001.Bird_1"


def test_classes_and_shots(animals: Path, requests: list[Any]) -> None:
    everything = load_task(animals, image_size=16)
    task = load_task(animals, image_size=16, classes=2, shots=4, seed=5)
    assert (task.class_names, task.classes, task.shots) == (("ant", "bee"), 2, 4)
    labelled = np.concatenate([task.split.train, task.split.val])
    assert np.bincount(task.labels[labelled]).tolist() == [4, 4]
    assert np.bincount(task.labels[task.split.test]).tolist() == [4, 2]
    assert len(task.images) == len(task.labels) == 14  # only the used images are decoded
    rows = task.images.array[task.split.test].tolist()
    assert rows == everything.images.array[everything.split.test[:6]].tolist()
    other = load_task(animals, image_size=16, classes=2, shots=4, seed=6)
    assert other.images.array[other.split.test].tolist() == rows
    assert other.images.array.tolist() != task.images.array.tolist()


def test_the_fingerprint_depends_on_images_and_options(animals: Path, requests: list[Any]) -> None:
    first = load_task(animals, image_size=16)
    assert load_task(animals, image_size=16, seed=9, backbone="resnet18").fingerprint == first.fingerprint
    animals.rename(animals.with_name("moved"))
    moved = animals.with_name("moved")
    assert load_task(moved, image_size=16).fingerprint == first.fingerprint
    others = [
        load_task(moved, image_size=17),
        load_task(moved, image_size=16, classes=2),
        load_task(moved, image_size=16, shots=4),
        load_task(moved, image_size=16, shots=4, seed=1),
        load_task(moved, image_size=16, shots=5),
    ]
    (moved / "ant" / "000.png").unlink()
    others.append(load_task(moved, image_size=16))
    assert len({task.fingerprint for task in (first, *others)}) == 7


def test_unreadable_images_are_left_out_and_counted(
    animals: Path, requests: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    whole = load_task(animals, image_size=16)
    (animals / "ant" / "007.png").write_bytes(b"no image")
    (animals / "cow" / "000.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="nbt"):
        task = load_task(animals, image_size=16)
    assert "2 of 60 images cannot be read" in caplog.text
    assert np.bincount(task.labels).tolist() == [19, 10, 29]
    assert dataset_summary(task)["unreadable_images"] == 2
    together = np.concatenate([task.split.train, task.split.val, task.split.test])
    assert sorted(together.tolist()) == list(range(58))
    before = {row.tobytes() for row in whole.images.array[whole.split.test]}
    assert {row.tobytes() for row in task.images.array[task.split.test]} <= before  # the test images are unchanged


def test_a_class_without_readable_images_is_left_out(animals: Path, requests: list[Any]) -> None:
    whole = load_task(animals, image_size=16)
    for path in (animals / "bee").iterdir():
        path.write_bytes(b"no image")
    task = load_task(animals, image_size=16)
    assert task.class_names == ("ant", "cow") and np.bincount(task.labels).tolist() == [20, 30]
    assert task.images.array[task.labels == 1].tolist() == whole.images.array[whole.labels == 2].tolist()
    failed = {check.code: check for check in task.checks if check.is_failed}
    assert (failed["NBT105"].severity, failed["NBT109"].severity, failed["NBT109"].count) == ("error", "error", 10)


def test_too_few_readable_classes_are_refused(animals: Path, requests: list[Any]) -> None:
    for path in (*(animals / "bee").iterdir(), *(animals / "ant").iterdir()):
        path.write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"only class 'cow' has images to train on.*: 30 images cannot be read, the f"):
        load_task(animals, image_size=16)


def test_dataset_summary(animals: Path, requests: list[Any]) -> None:
    facts = dataset_summary(load_task(animals, image_size=16))
    assert facts == {
        "classes": 3,
        "train_images": 36,
        "validation_images": 12,
        "effective_validation_images": 10,  # 9 / (1/2 + 1/4 + 1/6), as 2, 4 and 6 images of the classes
        "validation_fixed": False,
        "test_images": 12,
        "class_images_min": 8,
        "class_images_median": 16.0,
        "class_images_max": 24,
        "imbalance": 3.0,
        "image_size": 16,
        "validation_share": 0.25,
        "validation_standard_error": 0.1443,
        "unreadable_images": 0,
    }
    assert json.loads(json.dumps(facts)) == facts
    merged = dataset_summary(load_task(animals, image_size=16).train_on_all())
    assert (merged["train_images"], merged["validation_standard_error"]) == (48, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 7}, "--image-size 7: expected a whole number, 8 ... 1024"),
        ({"image_size": 10**6}, "--image-size 1000000"),
        ({"classes": 1}, "--classes 1: expected a whole number, 2 or more"),
        ({"classes": 4}, "--classes 4: animals has 3 classes"),
        ({"classes": True}, "--classes True"),
        ({"shots": 1}, "--shots 1: expected a whole number, 2 or more; a class needs one image to train"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 0.5}, "--seed 0.5"),
        ({"backbone": "mobilenet_v3"}, "mobilenet_v3"),
        ({"weights": "lost.pth"}, "--weights lost.pth: no such file; expected default, none"),
        ({"data_dir": "."}, "--data-dir is for datasets known by name"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_decoded(
    animals: Path, requests: list[Any], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("nbt.task.data.decode_images", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(UsageError) as error:
        load_task(animals, **options)
    assert message in str(error.value)
    assert requests == []


def test_too_many_classes_of_a_known_dataset_need_no_download() -> None:
    with pytest.raises(UsageError, match=r"--classes 300: expected a whole number, 2 \.\.\. 200; cub has 200 classes"):
        check_task_options("cub", classes=300)


def test_too_few_images_are_refused_with_the_name_of_the_dataset(tmp_path: Path, requests: list[Any]) -> None:
    folder = save_classes(tmp_path / "few", {"ant": 2, "bee": 2})
    with pytest.raises(UsageError, match="few: no image is left to test on"):
        load_task(folder)
    assert requests == []


def test_a_class_of_one_image_is_trained_on(tmp_path: Path, requests: list[Any]) -> None:
    task = load_task(save_classes(tmp_path / "few", {"ant": 8, "bee": 9, "cow": 1}), image_size=8)
    assert task.labels[task.split.train].tolist().count(2) == 1
    assert {check.code for check in task.checks if check.is_failed} == {"NBT105", "NBT106", "NBT107"}


@pytest.mark.parametrize("resize", ["pad", "squash"])
def test_resize_is_part_of_images_and_identity(tmp_path: Path, requests: list[Any], resize: str) -> None:
    folder = save_classes(tmp_path / "wide", {"ant": 4, "bee": 4})
    cropped, other = load_task(folder, image_size=8), load_task(folder, image_size=8, resize=resize)
    assert (cropped.resize, other.resize) == ("crop", resize)
    assert cropped.fingerprint != other.fingerprint and cropped.images.path != other.images.path
    with pytest.raises(UsageError, match="--resize 'stretch'"):
        load_task(folder, resize="stretch")


def test_weights_are_checked_before_images_are_decoded(
    animals: Path, requests: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise UsageError("the file is no state dict")

    monkeypatch.setattr(sys.modules["nbt.models.weights"], "load_pretrained_weights", refuse)
    monkeypatch.setattr("nbt.task.data.decode_images", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(UsageError, match="no state dict"):
        load_task(animals, image_size=16)


def test_checked_options_are_canonical(animals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (animals.parent / "w.pth").write_bytes(b"")
    monkeypatch.chdir(animals.parent)
    options = check_task_options("animals", weights="w.pth", classes=2)
    assert (options.source.dataset, options.weights) == (str(animals), str(animals.parent / "w.pth"))
    cub = save_cub(animals.parent / "CUB_200_2011")
    assert check_task_options("cub", data_dir=".").data_dir == str(cub.parent)


def test_checking_options_imports_neither_torch_nor_numpy(animals: Path) -> None:
    code = (
        "import sys; from nbt.task.options import check_task_options\n"
        f"check_task_options({str(animals)!r}, classes=2, backbone='resnet18')\n"
        "print(sorted({'numpy', 'torch', 'torchvision', 'sklearn', 'PIL', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_task_builds_its_real_model(animals: Path) -> None:
    task = load_task(animals, backbone="conv3", weights="none", image_size=28)
    model = task.build_model()
    import torch

    pixels = torch.from_numpy(task.images.array[:2]).permute(0, 3, 1, 2) / 255.0
    assert model(pixels).shape == (2, 3)


def test_the_crop_of_50_birds(shared: Path, requests: list[Any]) -> None:
    task = load_task("cub", data_dir=shared / "data", image_size=32)
    facts = dataset_summary(task)
    assert [facts[f"{part}_images"] for part in ("train", "validation", "test")] == [1100, 400, 1452]
    assert (facts["classes"], facts["unreadable_images"], facts["validation_standard_error"]) == (50, 0, 0.025)


def test_another_backbone_shares_images_and_split_and_has_its_own_weights(animals: Path, requests: list[Any]) -> None:
    task = load_task(animals, image_size=16, seed=3)
    other = load_candidate(task, "resnet18", "none", 16)
    assert (other.backbone.text, other.weights) == ("resnet18", "none")
    assert other.images is task.images and other.split is task.split
    assert requests[-1] == ("resnet18", "none", 16)
    larger = load_candidate(task, "resnet18", "none", 24)
    assert larger.images.array.shape == (60, 24, 24, 3)
    assert np.array_equal(larger.split.val, task.split.val) and np.array_equal(larger.labels, task.labels)
    with pytest.raises(UsageError, match="did you mean resnet18"):
        load_candidate(task, "resnet81")


def test_tasks_of_several_backbones_travel_together(animals: Path, requests: list[Any]) -> None:
    task = load_task(animals, image_size=16)
    both = dataclasses.replace(task, candidates={"other": load_candidate(task, "resnet18", "none", 16)})
    read = pickle.loads(pickle.dumps(both))
    assert read.candidate("other").images is read.images, "the images are not copied"
    assert read.candidate("") is read
    with pytest.raises(UsageError, match="'othr' is not a backbone of this search; did you mean other"):
        read.candidate("othr")
    named = both.map_candidates(lambda found: dataclasses.replace(found, dataset=found.backbone.text))
    assert (named.dataset, named.candidate("other").dataset) == ("mobilenet_v2", "resnet18")
