from __future__ import annotations

from pathlib import Path

from tests.data.checks.checked import check_results, failed_codes
from tests.data.pictures import save_classes, save_image

CLASSES = {"cat": 6, "dog": 6}


def test_splits_under_other_names(tmp_path: Path) -> None:
    save_classes(tmp_path / "seg_train", CLASSES)
    save_classes(tmp_path / "seg_test", CLASSES)
    assert failed_codes(tmp_path) == {"NBT101"}
    result = check_results(tmp_path)["NBT101"]
    assert (result.severity, result.count) == ("info", 2)
    assert result.message == "Read seg_train/ as train, seg_test/ as test."


def test_classes_in_an_inner_folder(tmp_path: Path) -> None:
    save_classes(tmp_path / "data" / "pets", CLASSES)
    assert check_results(tmp_path)["NBT101"].message == "Read data/pets/ as the folder of the classes."


def test_splits_inside_class_folders(tmp_path: Path) -> None:
    for label in CLASSES:
        save_classes(tmp_path / label, {"train": 6, "test": 2})
    assert failed_codes(tmp_path) == {"NBT101"}


def test_a_class_that_is_named_like_a_split(tmp_path: Path) -> None:
    save_classes(tmp_path, {"train": 6, "bus": 6})
    result = check_results(tmp_path)["NBT101"]
    assert result.is_failed and (result.severity, result.examples) == ("warning", ("train",))


def test_usual_names_pass(tmp_path: Path) -> None:
    save_classes(tmp_path / "train", CLASSES)
    save_image(tmp_path / "train" / "cat" / "wide.png")
    save_classes(tmp_path / "test", CLASSES)
    assert failed_codes(tmp_path) == set()


def test_datasets_without_folders() -> None:
    assert check_results("digits", 28)["NBT101"].state == "not_applicable"


def test_class_folders_that_hold_the_same_folders_may_be_folds(tmp_path: Path) -> None:
    for fold in ("fold1", "fold2", "fold3"):
        save_classes(tmp_path / fold, CLASSES)
    result = check_results(tmp_path)["NBT101"]
    assert result.is_failed and (result.severity, result.count) == ("warning", 3)
    assert result.message == (
        "The folders fold1, fold2, fold3 were read as classes; each holds the folders cat, dog, which were not."
    )
    save_image(tmp_path / "fold1" / "cow" / "1.png")
    assert check_results(tmp_path)["NBT101"].state == "passed"
