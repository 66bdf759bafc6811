from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nbt.data.catalog import dataset_names, dataset_spec
from nbt.data.resolve import resolve
from nbt.errors import UsageError
from tests.data.pictures import save_classes, save_cub, save_image

NAMES = [
    "digits",
    "numbers",
    "cub",
    "cars",
    "aircraft",
    "dtd",
    "flowers",
    "pets",
    "caltech101",
    "food101",
    "eurosat",
    "svhn",
    "cifar10",
    "cifar100",
    "omniglot",
    "omniglot-small",
]


def test_known_datasets_start_with_the_embedded_ones() -> None:
    assert list(dataset_names()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_specs_have_all_fields_that_are_shown(name: str) -> None:
    spec = dataset_spec(name)
    assert spec.name == name
    assert spec.title and spec.description and spec.homepage.startswith("http")
    assert spec.classes is not None and spec.images is not None
    assert 2 <= spec.classes < spec.images


def test_characters_are_not_mirrored_and_digits_have_a_default_backbone() -> None:
    characters = ["digits", "numbers", "svhn", "omniglot", "omniglot-small"]
    assert [name for name in NAMES if not dataset_spec(name).mirror] == characters
    assert (dataset_spec("digits").default_backbone, dataset_spec("digits").image_size) == ("conv3", 28)
    assert {dataset_spec(name).default_backbone for name in NAMES[2:]} == {"mobilenet_v2"}


def test_resolving_a_dataset_imports_no_heavy_library(tmp_path: Path) -> None:
    save_classes(tmp_path / "animals", {"cat": 1, "dog": 1})
    code = (
        "import sys; from nbt.data.resolve import resolve\n"
        f"resolve({str(tmp_path / 'animals')!r}); resolve('cub')\n"
        "print(sorted({'numpy', 'torch', 'torchvision', 'sklearn', 'PIL', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("cubb", ["unknown dataset 'cubb'", "did you mean cub?"]),
        ("CIFAR10", ["did you mean cifar10"]),
        ("zzzzzz", ["unknown dataset 'zzzzzz'", "; nbt datasets lists the known names"]),
        ("nowhere", ["unknown dataset 'nowhere'", "; nbt datasets lists the known names"]),
        ("./nowhere/animals", ["--dataset ./nowhere/animals: no such folder or file"]),
        ("missing.csv", ["no such folder or file"]),
        ("~/no-such-folder-of-images", ["no such folder or file"]),
        ("x" * 5000, ["unknown dataset"]),
        ("~nobody-of-this-name/a", ["no such folder or file"]),
        ("", ["unknown dataset ''"]),
    ],
)
def test_unknown_datasets_are_named_with_a_remedy(text: str, messages: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        resolve(text)
    for message in messages:
        assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_spec_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown dataset 'flower'; did you mean flowers"):
        dataset_spec("flower")


def test_a_name_takes_precedence_over_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_classes(tmp_path / "cifar10", {"a": 1, "b": 1})
    monkeypatch.chdir(tmp_path)
    assert resolve("cifar10").kind == "torchvision"
    assert resolve("./cifar10").kind == "folder"
    assert resolve("./cifar10").dataset == str(tmp_path / "cifar10")


def test_folders_and_manifests_are_distinguished(tmp_path: Path) -> None:
    folder = save_classes(tmp_path / "animals", {"cat": 1, "dog": 1})
    manifest = tmp_path / "animals.csv"
    manifest.write_text("path,label\nanimals/cat/000.png,cat\nanimals/dog/000.png,dog\n")
    assert [resolve(folder).kind, resolve(manifest).kind] == ["folder", "manifest"]
    assert [resolve(folder).spec.name, resolve(manifest).spec.name] == ["animals", "animals.csv"]


def test_a_file_that_is_no_csv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a file, but no \.csv"):
        resolve(save_image(tmp_path / "one.png"))


def test_a_folder_in_the_layout_of_cub_is_read_as_cub(tmp_path: Path) -> None:
    save_cub(tmp_path / "CUB_200_2011")
    for folder in (tmp_path, tmp_path / "CUB_200_2011"):
        assert resolve(folder).kind == "cub"
        assert resolve(folder).path == tmp_path / "CUB_200_2011"
        assert resolve("cub", folder).path == tmp_path / "CUB_200_2011"
        assert resolve("cub", folder).spec == dataset_spec("cub")
    assert resolve("cub").path is None


def test_a_cub_data_dir_with_missing_tables_names_them(tmp_path: Path) -> None:
    save_cub(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(UsageError, match=r"missing: classes\.txt\)"):
        resolve("cub", tmp_path)


def test_data_dir_must_exist_and_requires_a_named_dataset(tmp_path: Path) -> None:
    folder = save_classes(tmp_path / "animals", {"cat": 1, "dog": 1})
    with pytest.raises(UsageError, match="no such folder"):
        resolve("cub", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="for datasets known by name"):
        resolve(folder, tmp_path)
    with pytest.raises(UsageError, match="digits is embedded"):
        resolve("digits", tmp_path)


def test_cars_require_a_data_dir(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can no longer be downloaded; give --data-dir"):
        resolve("cars")
    with pytest.raises(UsageError, match="not found at"):
        resolve("cars", tmp_path)


def test_a_copy_is_found_from_its_folder_and_its_parents(tmp_path: Path) -> None:
    marker = tmp_path / "dtd" / "dtd" / "labels" / "test1.txt"
    marker.parent.mkdir(parents=True)
    marker.write_text("")
    for folder in (tmp_path, tmp_path / "dtd", tmp_path / "dtd" / "dtd"):
        assert resolve("dtd", folder).path == tmp_path
    empty = tmp_path / "empty"
    empty.mkdir()
    assert resolve("eurosat", empty).path == empty


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "has no images; expected one subfolder per class"),
        ({"cat": 2}, r"one class only \(cat\)"),
        ({"cat": 0, "dog": 0}, "has no images"),
    ],
)
def test_folders_without_a_dataset_are_refused(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    for name in counts:
        (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=message):
        resolve(save_classes(tmp_path, counts))


def test_images_outside_class_folders_are_refused(tmp_path: Path) -> None:
    save_image(tmp_path / "one.png")
    with pytest.raises(UsageError, match="has images, but no class folders"):
        resolve(tmp_path)
