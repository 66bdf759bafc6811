from __future__ import annotations

from pathlib import Path

import pytest

from nbt.data.image_files import sort_class_names
from nbt.data.readers.image_folder import BESIDE_SPLITS, EMPTY, LOOSE, read_image_folder
from nbt.errors import UsageError
from tests.data.pictures import save_classes, save_image


def names(folder: Path) -> list[tuple[str, str, str]]:
    return [(str(row.path.relative_to(folder)), row.label, row.split) for row in read_image_folder(folder)[0].images]


def test_class_folders_are_read_in_order_with_subfolders_and_without_hidden_files(tmp_path: Path) -> None:
    for path in ("dog/b.JPG", "dog/a.png", "cat/more/c.webp", ".git/x.png", "dog/._a.png", "__MACOSX/dog/y.png"):
        save_image(tmp_path / path)
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    assert names(tmp_path) == [("cat/more/c.webp", "cat", ""), ("dog/a.png", "dog", ""), ("dog/b.JPG", "dog", "")]


def test_files_that_are_passed_over_have_a_reason(tmp_path: Path) -> None:
    save_classes(tmp_path / "train", {"a": 2, "b": 1})
    save_classes(tmp_path / "test", {"a": 1})
    save_classes(tmp_path / "more", {"a": 1})
    for name in ("loose.png", "train/loose.jpg", "train/a/.hidden.png"):
        save_image(tmp_path / name)
    for name in ("train/a/Thumbs.db", "train/a/notes.txt", "train/b/photo.NEF", "readme.md"):
        (tmp_path / name).write_bytes(b"II*\0")
    found, _ = read_image_folder(tmp_path)
    assert len(found.images) == 4
    assert sorted((str(path.relative_to(tmp_path)), reason) for path, reason in found.passed_over) == [
        ("loose.png", LOOSE),
        ("more/a/000.png", BESIDE_SPLITS),
        ("readme.md", "not an image"),
        ("train/a/.hidden.png", "hidden or system file"),
        ("train/a/Thumbs.db", "hidden or system file"),
        ("train/a/notes.txt", "not an image"),
        ("train/b/photo.NEF", "camera raw file"),
        ("train/loose.jpg", LOOSE),
    ]


def test_an_error_says_what_a_folder_without_images_holds(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "x.mp4").touch()
    with pytest.raises(UsageError, match=r"has no images; .*; found 1 \.mp4 \(video\)"):
        read_image_folder(tmp_path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (("1.png", "2.png"), "has images, but no class folders"),
        (("images/1.png", "images/2.png"), r"has one class only \(images\); expected two or more class folders"),
        (("train/1.png", "test/2.png"), "have no class folders in them"),
    ],
)
def test_an_error_names_the_table_that_may_hold_the_labels(
    tmp_path: Path, images: tuple[str, ...], message: str
) -> None:
    for name in images:
        save_image(tmp_path / name)
    for name in ("labels.CSV", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=rf"{message}.*give its path as the dataset \(labels\.CSV\)$"):
        read_image_folder(tmp_path)


def test_an_empty_folder_is_no_class(tmp_path: Path) -> None:
    save_classes(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "c").mkdir()
    assert [label for _, label, _ in names(tmp_path)] == ["a", "b"]
    assert read_image_folder(tmp_path)[0].passed_over == [(tmp_path / "c", EMPTY)]


def test_split_folders_have_aliases(tmp_path: Path) -> None:
    for part in ("Training", "validation", "test"):
        save_classes(tmp_path / part, {"a": 1, "b": 1})
    assert {split: part.name for split, part in read_image_folder(tmp_path)[1].parts.items()} == {
        "train": "Training",
        "val": "validation",
        "test": "test",
    }
    assert sorted(names(tmp_path)) == [
        (f"{part}/{label}/000.png", label, role)
        for part, role in (("Training", "train"), ("test", "test"), ("validation", "val"))
        for label in "ab"
    ]


def test_a_train_folder_alone_is_a_split_folder(tmp_path: Path) -> None:
    save_classes(tmp_path / "train", {"a": 1, "b": 1})
    assert {role for _, _, role in names(tmp_path)} == {"train"}


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    save_classes(tmp_path, {"train": 2, "test": 1, "bus": 1})
    assert [label for _, label, _ in names(tmp_path)] == ["bus", "test", "train", "train"]


def test_a_class_called_train_may_have_folders_in_it(tmp_path: Path) -> None:
    save_classes(tmp_path / "train", {"steam": 1, "electric": 1})
    save_classes(tmp_path, {"bus": 1})
    assert [label for _, label, _ in names(tmp_path)] == ["bus", "train", "train"]


def test_images_next_to_split_folders_are_passed_over(tmp_path: Path) -> None:
    for part in ("train", "test", "unlabelled"):
        save_classes(tmp_path / part, {"a": 1, "b": 1})
    assert len(names(tmp_path)) == 4
    assert [reason for _, reason in read_image_folder(tmp_path)[0].passed_over] == [BESIDE_SPLITS] * 2


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    for part in ("train", "val", "valid"):
        save_classes(tmp_path / part, {"a": 1, "b": 1})
    with pytest.raises(UsageError, match="val/ and valid/ are both val"):
        read_image_folder(tmp_path)


def test_linked_class_folders_are_followed(tmp_path: Path) -> None:
    save_classes(tmp_path / "store", {"a": 1, "b": 2})
    data = tmp_path / "data"
    data.mkdir()
    for name in "ab":
        (data / name).symlink_to(tmp_path / "store" / name)
    assert [label for _, label, _ in names(data)] == ["a", "b", "b"]


def test_numeric_class_names_are_sorted_by_value() -> None:
    assert sort_class_names(["10", "9", "2", "9"]) == ["2", "9", "10"]
    assert sort_class_names(["10", "9", "x"]) == ["10", "9", "x"]
