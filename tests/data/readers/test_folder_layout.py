"""How folders are arranged: names of splits that people use, and what is ambiguous."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbt.data.readers.folder_layout import AmbiguousLayoutError, find_layout
from tests.data.pictures import save_classes, save_image

CLASSES = {"cat": 1, "dog": 1}


def parts(folder: Path) -> dict[str, str]:
    layout = find_layout(folder)
    return {split: layout.name(part) for split, part in layout.parts.items()}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("seg_train", "", "seg_test"),
        ("Training", "", "Testing"),
        ("train_images", "valid_images", "test_images"),
        ("TrainImages", "DevImages", "TestImages"),
        ("training_set", "", "test_set"),
        ("trainset", "validset", "testset"),
        ("train2017", "val2017", "test2017"),
        ("01_train", "02_validation", "03_eval"),
        ("train", "eval", "test"),
        ("TRAIN", "VALIDATION", "HOLDOUT"),
        ("trainval", "", "test"),
        ("ILSVRC2012_img_train", "ILSVRC2012_img_val", ""),
        ("imagesTr", "", "imagesTs"),
        ("Trainingsdaten", "Validierungsdaten", "Testdaten"),
        ("flowers_train", "flowers_dev", "flowers_tst"),
    ],
)
@pytest.mark.parametrize("outer", ["", "data", "dataset/images"])
def test_splits_have_many_names(tmp_path: Path, train: str, val: str, test: str, outer: str) -> None:
    expected = {split: name for split, name in (("train", train), ("val", val), ("test", test)) if name}
    for name in expected.values():
        save_classes(tmp_path / outer / name, CLASSES)
    assert parts(tmp_path) == {split: (Path(outer) / name).as_posix() for split, name in expected.items()}


def test_splits_with_a_folder_of_the_same_name_in_them(tmp_path: Path) -> None:
    for name in ("seg_train", "seg_test"):
        save_classes(tmp_path / name / name, CLASSES)
    save_image(tmp_path / "seg_pred" / "seg_pred" / "1.png")
    assert parts(tmp_path) == {"train": "seg_train/seg_train", "test": "seg_test/seg_test"}


def test_splits_with_a_folder_of_images_in_them(tmp_path: Path) -> None:
    for name in ("train", "val"):
        save_classes(tmp_path / name / "images", CLASSES)
        (tmp_path / name / "labels").mkdir()
    assert parts(tmp_path) == {"train": "train/images", "val": "val/images"}


def test_test_images_without_labels_are_no_part(tmp_path: Path) -> None:
    save_classes(tmp_path / "train", CLASSES)
    save_image(tmp_path / "test" / "1.png")
    save_image(tmp_path / "sample" / "1.png")
    assert parts(tmp_path) == {"train": "train"}


def test_splits_inside_class_folders(tmp_path: Path) -> None:
    for label in CLASSES:
        save_classes(tmp_path / label, {"train": 2, "test": 1})
    assert find_layout(tmp_path).split_inside_class
    assert parts(tmp_path) == {"": "."}


@pytest.mark.parametrize(
    "images",
    [
        ("train_station/1.png", "bus_station/1.png"),
        ("train/1.png", "bus/1.png"),
        ("train/1.png", "test/1.png", "bus/1.png"),
        ("train/steam/1.png", "train/electric/1.png", "bus/1.png"),
        ("test_strip/1.png", "pregnancy_test/1.png"),
        ("steam_train/1.png", "model_train/1.png"),
        ("contest/1.png", "latest/1.png"),
        ("train_ride/1.png", "test_site/1.png"),
        ("cat/2019/1.png", "dog/2020/1.png"),
        ("cat/train/1.png", "dog/a/1.png"),
        ("a/cat/1.png", "b/dog/1.png"),
    ],
)
def test_classes_with_names_like_splits(tmp_path: Path, images: tuple[str, ...]) -> None:
    for image in images:
        save_image(tmp_path / image)
    layout = find_layout(tmp_path)
    assert parts(tmp_path) == {"": "."} and not layout.split_inside_class


def test_a_folder_in_a_folder_is_entered(tmp_path: Path) -> None:
    save_classes(tmp_path / "archive" / "pets", CLASSES)
    (tmp_path / "archive" / "documents").mkdir()
    assert parts(tmp_path) == {"": "archive/pets"}


def test_a_class_with_images_beside_its_folders_is_not_entered(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/more/2.png", "cat/old/3.png"):
        save_image(tmp_path / name)
    assert parts(tmp_path) == {"": "."}


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (("train/1.png", "test/1.png"), "test/ and train/ look like splits, but have no class folders"),
        (("x_train/1.png", "x_test/1.png"), "look like splits, but have no class folders"),
        (("data/train/1.png", "data/val/1.png"), "look like splits, but have no class folders"),
        (("train/a/1.png", "val/a/1.png", "valid/a/1.png"), "val/ and valid/ are both val"),
        (("train_1/a/1.png", "train_2/a/1.png"), "train_1/ and train_2/ are both train"),
        (("train/a/1.png", "train/b/1.png", "test/c/1.png"), "train/ and test/ look like train and test, but have no"),
        (("val/a/1.png", "test/a/1.png"), "hold the same class folders, but none of them is named train"),
    ],
)
def test_ambiguous_folders_are_refused(tmp_path: Path, images: tuple[str, ...], reason: str) -> None:
    for image in images:
        save_image(tmp_path / image)
    with pytest.raises(AmbiguousLayoutError, match=reason) as error:
        find_layout(tmp_path)
    assert "put the class folders into train/, val/ and test/" in str(error.value)
    assert error.value.exit_code == 2
