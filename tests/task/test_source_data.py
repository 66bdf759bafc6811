from __future__ import annotations

import dataclasses
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from nbt.data.resolve import resolve
from nbt.errors import UsageError
from nbt.models.source_classes import SourceClasses
from nbt.task.load import load_candidate, load_task, with_source_data
from nbt.task.source_data import load_source_data, match_classes
from tests.data.near_copies.test_search import textures
from tests.data.pictures import save_classes, save_image
from tests.source_images import BACKBONE, save_source_images, save_source_weights

BIRDS = SourceClasses(5, ("jay", "indigo bunting", "crane", "red-breasted merganser", "crane"))


@pytest.mark.parametrize(
    ("names", "classes", "outputs", "matching"),
    [
        (["Indigo_Bunting", "Red-breasted_Merganser", "jay"], BIRDS, [1, 3, 0], "names"),
        (["2", "jay"], BIRDS, [2, 0], "numbers"),
        (["0", "4"], SourceClasses(5), [0, 4], "numbers"),
        (["1", "0"], SourceClasses(2, ("1", "0")), [0, 1], "names"),
        ([f"n0144076{digit}" for digit in range(5)], BIRDS, [0, 1, 2, 3, 4], "order"),
        (["1", "2", "3"], SourceClasses(3), [0, 1, 2], "order"),
    ],
    ids=["by name", "a number beside a name", "by number", "names before numbers", "in order", "numbers from 1"],
)
def test_classes_are_matched(names: list[str], classes: SourceClasses, outputs: list[int], matching: str) -> None:
    found, how = match_classes(names, classes, "birds")
    assert (found.tolist(), how) == (outputs, matching)


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        (
            ["jay", "indgo bunting"],
            BIRDS,
            r"1 of 2 classes .* 5 outputs .* indgo bunting \(for indgo bunting: did you mean indigo bunting",
        ),
        (
            ["crane"],
            BIRDS,
            r"name each folder after a class of the source or the number of its output, 0 to 4$",
        ),
        (["jay", "5"], BIRDS, "1 of 2 classes"),
        (["a", "b"], SourceClasses(3), r"2 of 2 .* classifier: a, b; name each folder after the number of its output"),
        (["a", "b", "c", "d", "e"], BIRDS, r"5 of 5 classes .* or the number of its output, 0 to 4$"),
        (["jay", "a", "b", "c", "d"], BIRDS, r"4 of 5 classes .* a, b, c, \.\.\."),
        (["0", "5"], SourceClasses(2, ("5", "6")), r"1 of 2 classes .* name each folder after a class of the source$"),
        (["0", "Jay"], BIRDS, r"the classes 0 and Jay are both matched with output 0 of the source's classifier"),
    ],
    ids=[
        "misspelt",
        "an ambiguous name",
        "a number too high",
        "unknown names",
        "other names",
        "some names of all",
        "a number as a name",
        "twice",
    ],
)
def test_classes_that_cannot_be_matched_are_named(names: list[str], classes: SourceClasses, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        match_classes(names, classes, "birds")


def test_held_out_images_are_used(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        save_classes(tmp_path / "split" / part, {"a": count, "b": count})
    assert len(load_source_data(resolve(tmp_path / "split"), SourceClasses(2), 16).labels) == 2
    save_classes(tmp_path / "plain", {"a": 3, "b": 2})
    source = load_source_data(resolve(tmp_path / "plain"), SourceClasses(7, ("x", "b", "a", "", "", "", "")), 16)
    assert source.labels.tolist() == [2, 2, 2, 1, 1]
    assert source.images.array.shape == (5, 16, 16, 3)


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    folder = save_classes(tmp_path / "images", {"a": 2, "b": 1})
    (folder / "a" / "000.png").write_bytes(b"no image")
    source = load_source_data(resolve(folder), SourceClasses(2), 16)
    assert source.labels.tolist() == [0, 1]
    for file in folder.rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"--source-data .*images: none of its 3 images can be read"):
        load_source_data(resolve(folder), SourceClasses(2), 16)


def test_identical_images_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save_classes(tmp_path / "images", {"0": 3, "1": 1})
    unique = load_source_data(resolve(folder), SourceClasses(2), 16)
    unique.warn_of_copies()
    assert (unique.copies, caplog.messages) == ((), [])
    for name in ("0/9.png", "1/9.png"):
        shutil.copy(folder / "0" / "001.png", folder / name)
    source = load_source_data(resolve(folder), SourceClasses(2), 16)
    assert source.copies == ("0/001.png = 0/9.png", "0/001.png = 1/9.png")
    assert len(source.labels) == 6, "they count"
    source.warn_of_copies()
    assert caplog.messages == [
        f"--source-data {folder}: its 6 images contain 2 identical copies, which the source accuracy counts, too: "
        "0/001.png = 0/9.png, 0/001.png = 1/9.png; keep one of each"
    ]


def test_near_copies_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "images"
    for i, picture in enumerate(textures(6)):
        (folder / str(i % 2)).mkdir(parents=True, exist_ok=True)
        picture.save(folder / str(i % 2) / f"{i}.png")
    Image.open(folder / "0" / "2.png").save(folder / "0" / "copy.jpg", quality=60)
    shutil.copy(folder / "0" / "2.png", folder / "0" / "same.png")
    source = load_source_data(resolve(folder), SourceClasses(2), 96)
    assert source.copies == ("0/2.png = 0/same.png",)
    assert source.near_copies == ("0/2.png and 0/copy.jpg",)
    source.warn_of_copies()
    assert "8 images contain 1 identical copy and 1 near copy (or frame of one scene), which" in caplog.text


def test_a_manifest_is_accepted(tmp_path: Path) -> None:
    for name in ("x", "y"):
        save_image(tmp_path / f"{name}.png")
    (tmp_path / "images.csv").write_text("path,label\nx.png,1\ny.png,0\n")
    assert load_source_data(resolve(tmp_path / "images.csv"), SourceClasses(3), 16).labels.tolist() == [1, 0]


def test_the_fingerprint_follows_bytes_and_classes_and_not_the_place(tmp_path: Path) -> None:
    folder = save_classes(tmp_path / "images", {"0": 2, "1": 1})
    first = load_source_data(resolve(folder), SourceClasses(2), 16)
    moved = load_source_data(resolve(folder.rename(tmp_path / "moved")), SourceClasses(3), 32)
    assert first.fingerprint == moved.fingerprint
    save_image(tmp_path / "moved" / "0" / "000.png", shade=200)
    assert load_source_data(resolve(tmp_path / "moved"), SourceClasses(2), 16).fingerprint != first.fingerprint


def test_a_task_has_its_source_in_other_processes_and_splits(tmp_path: Path) -> None:
    images = save_source_images(tmp_path / "images")
    weights = save_source_weights(tmp_path / "w.safetensors")
    task = load_task("digits", backbone=BACKBONE, weights=weights, shots=6, source_data=images)
    source = task.source_data
    assert source is not None and (source.dataset, source.matching) == (str(images), "numbers")
    assert (source.images.size, np.bincount(source.labels).tolist()) == (28, [12] * 5)
    sent = pickle.loads(pickle.dumps(task.with_split_seed(4))).source_data
    assert np.array_equal(sent.images.array, source.images.array) and np.array_equal(sent.labels, source.labels)
    other = load_candidate(task, "conv4(width=8)", "none")
    assert other.source_data is None and task.any_source_data is source
    assert dataclasses.replace(other, candidates={"a": task}).any_source_data is source
    with pytest.raises(UsageError, match=r"weights of conv4\(width=8\) are random"):
        with_source_data(other, images)


def test_images_are_changed_once_and_stay_shared(tmp_path: Path) -> None:
    images = save_source_images(tmp_path / "images")
    task = load_task("digits", backbone=BACKBONE, weights=save_source_weights(tmp_path / "w.safetensors"), shots=6)
    task = with_source_data(task, images)
    task = dataclasses.replace(task, candidates={"same": task})
    seen: list[str] = []
    changed = task.map_images(lambda store, name: seen.append(name) or dataclasses.replace(store, path=None))
    assert seen == ["28px", "source-28px"]
    other = changed.candidates["same"]
    assert other.images is changed.images and other.source_data.images is changed.source_data.images


@pytest.mark.parametrize("name", ["none", "units.safetensors"])
def test_weights_without_a_classifier_are_refused_before_images_are_decoded(tmp_path: Path, name: str) -> None:
    images, file = save_source_images(tmp_path / "images"), save_source_weights(tmp_path / "w.safetensors")
    units = {name: tensor for name, tensor in load_file(file).items() if name.startswith("units.")}
    save_file(units, tmp_path / "units.safetensors")
    shown: list[str] = []
    with pytest.raises(UsageError, match=r"weights of conv3.* (are random|have no linear classifier).*source.data"):
        load_task(
            "digits",
            backbone=BACKBONE,
            weights=name if name == "none" else tmp_path / name,
            source_data=images,
            progress=lambda text, *_: shown.append(text),
        )
    assert shown == []
