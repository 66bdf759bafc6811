"""Labelled images on which a model is evaluated: parts, and classes that differ from those of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbt.data.splits import make_pools
from nbt.errors import UsageError
from nbt.inference.labelled import LabelledImages, check_labelled, labelled_images_of, read_labelled
from tests.inference.conftest import Trained

NAMES = ("dog", "cat", "bird")


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return folder


def read(path: Path, **options: object) -> LabelledImages:
    return read_labelled(check_labelled(path), NAMES, **options)  # type: ignore[arg-type]


def files(labelled: LabelledImages) -> dict[str, int]:
    return {Path(name).name: label for name, label in zip(labelled.source.names, labelled.labels, strict=True)}


def test_classes_are_found_by_name(tmp_path: Path) -> None:
    labelled = read(write(tmp_path / "photos", "bird/b.png", "cat/c.png"))
    assert files(labelled) == {"b.png": 2, "c.png": 1}
    assert (labelled.part, labelled.reason) == ("all", "the dataset has no test part")


def test_the_official_test_part_is_the_default(tmp_path: Path) -> None:
    names = [f"{part}/{label}/{part}-{label}.png" for part in ("train", "val", "test") for label in ("cat", "dog")]
    folder = write(tmp_path / "photos", *names)
    labelled = read(folder)
    assert (files(labelled), labelled.part) == ({"test-cat.png": 1, "test-dog.png": 0}, "test")
    assert set(files(read(folder, part="val"))) == {"val-cat.png", "val-dog.png"}
    assert set(files(read(folder, part="train"))) == {"train-cat.png", "train-dog.png"}
    assert len(files(read(folder, part="all"))) == 6


def test_of_the_training_data_the_held_out_images_are_the_default(tmp_path: Path) -> None:
    folder = write(tmp_path / "photos", *(f"{label}/{label}{i}.png" for label in ("cat", "dog") for i in range(10)))
    labelled = read(folder, trained_on="photos")
    labels = np.repeat([0, 1], 10)
    pools = make_pools(labels, np.array([""] * 20), ("cat", "dog"))
    held_out = {f"{'cat' if labels[i] == 0 else 'dog'}{i % 10}.png" for i in pools.test}
    assert set(files(labelled)) == held_out
    assert len(held_out) == 4
    assert "held these images out" in labelled.reason
    assert len(files(read(folder, trained_on="other"))) == 20
    assert len(files(read(folder, trained_on="photos", part="all"))) == 20


def test_a_manifest(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png", "c.png")
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,label,split\na.png,cat,train\nb.png,dog,test\nc.png,cat,test\n")
    assert files(read(manifest)) == {"b.png": 0, "c.png": 1}


def test_unknown_classes_are_refused_unless_ignored(tmp_path: Path) -> None:
    folder = write(tmp_path / "photos", "cat/a.png", "dogs/b.png", "dog/c.png")
    with pytest.raises(
        UsageError, match=r"photos: has a class that the model does not know \('dogs'\); did you mean dog"
    ):
        read(folder)
    assert files(read(folder, ignore_unknown=True)) == {"a.png": 1, "c.png": 0}


def test_only_unknown_classes_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "photos", "x/a.png", "y/b.png")
    with pytest.raises(UsageError, match=r"has 2 classes that the model does not know \('x', 'y'\); known: dog, cat"):
        read(folder)
    with pytest.raises(UsageError, match="no images of the model's classes in the part 'all'"):
        read(folder, ignore_unknown=True)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["cat/a.png"], {}, r"has one class only \(cat\)"),
        (["a.png"], {}, "has images, but no class folders"),
        (["cat/a.png", "dog/b.png"], {"part": "val"}, "no official validation images"),
        (["cat/a.png", "dog/b.png"], {"part": "some"}, "part 'some': expected one of test, val, train, all"),
    ],
)
def test_wrong_data(names: list[str], options: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read(write(tmp_path / "photos", *names), **options)


def test_a_missing_dataset_is_named_without_an_option() -> None:
    with pytest.raises(UsageError, match=r"^nowhere/x: no such folder or file"):
        check_labelled("nowhere/x")


def test_the_images_of_a_task(trained: Trained) -> None:
    task, names = trained.task, [*reversed(trained.task.class_names)]
    labelled = labelled_images_of(task, names)
    assert (len(labelled.labels), labelled.part) == (len(task.split.test), "test")
    np.testing.assert_array_equal(labelled.labels, 4 - task.labels[task.split.test])
    np.testing.assert_array_equal(labelled.source.items[0], task.images.array[task.split.test[0]])
    assert len(labelled_images_of(task, names, part="all").labels) == len(task.labels)
    with pytest.raises(UsageError, match="does not know"):
        labelled_images_of(task, names[:3])
    kept = labelled_images_of(task, names[:3], ignore_unknown=True)
    assert len(kept.labels) == sum(task.labels[task.split.test] >= 2)


def test_images_in_memory_have_the_numbers_of_the_dataset(trained: Trained) -> None:
    numbers = [f"image {index}" for index in trained.task.split.test]
    assert labelled_images_of(trained.task, trained.task.class_names).source.names == numbers
    listed = read_labelled(check_labelled("digits"), trained.task.class_names, part="test").source.names
    assert len(listed) > 10 and listed != [f"image {position}" for position in range(len(listed))]
