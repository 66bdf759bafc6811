"""All datasets that are read through torchvision, from small copies in its layout; nothing is downloaded."""

from __future__ import annotations

import hashlib
import json
import pickle
import tarfile
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from nbt.data.catalog import dataset_names, dataset_spec
from nbt.data.listing import Listing
from nbt.data.readers import torchvision_datasets as torchvision_sets
from nbt.data.registry import read_dataset
from nbt.data.resolve import resolve
from nbt.errors import NbtError
from tests.data.pictures import pack, save_classes, save_image, serve


def write_cars(root: Path) -> None:
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(["Audi", "BMW"], dtype=object)})
    kind = [("fname", object), ("class", object)]
    for file in ("devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"):
        (base / ("cars_train" if "train" in file else "cars_test")).mkdir()
        notes = np.array([(f"{number:05d}.jpg", 1 + number % 2) for number in range(4)], dtype=kind)
        savemat(base / file, {"annotations": notes})


def write_aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    data.mkdir(parents=True)
    (data / "variants.txt").write_text("707-320\nA340 600\n")
    for number, split in enumerate(("train", "val", "test")):
        lines = [f"{number}00{i} {name}" for i, name in enumerate(("707-320", "A340 600"))]
        (data / f"images_variant_{split}.txt").write_text("\n".join(lines) + "\n")


def write_dtd(root: Path) -> None:
    labels = root / "dtd" / "dtd" / "labels"
    labels.mkdir(parents=True)
    (root / "dtd" / "dtd" / "images").mkdir()
    for split in ("train", "val", "test"):
        (labels / f"{split}1.txt").write_text(f"banded/banded_{split}.jpg\ndotted/dotted_{split}.jpg\n")


def write_flowers(root: Path) -> None:
    base = root / "flowers-102"
    (base / "jpg").mkdir(parents=True)
    savemat(base / "imagelabels.mat", {"labels": np.array([1, 2, 1, 2, 1, 2])})
    savemat(base / "setid.mat", {"trnid": np.array([1, 2]), "valid": np.array([3, 4]), "tstid": np.array([5, 6])})


def write_pets(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    (base / "images").mkdir(parents=True)
    (base / "annotations").mkdir()
    for split, number in (("trainval", 1), ("test", 2)):
        text = f"Abyssinian_{number} 1 1 1\ngreat_dane_{number} 2 2 1\n"
        (base / "annotations" / f"{split}.txt").write_text(text)


def write_caltech(root: Path) -> None:
    folder = root / "caltech101" / "101_ObjectCategories"
    for name in ("accordion", "BACKGROUND_Google", "yin_yang"):
        for number in (1, 2):
            save_image(folder / name / f"image_{number:04d}.jpg")


def write_food(root: Path) -> None:
    base = root / "food-101"
    (base / "images").mkdir(parents=True)
    (base / "meta").mkdir()
    for split, number in (("train", 1), ("test", 2)):
        meta = {"waffles": [f"waffles/{number}"], "apple_pie": [f"apple_pie/{number}"]}
        (base / "meta" / f"{split}.json").write_text(json.dumps(meta))


def write_eurosat(root: Path) -> None:
    save_classes(root / "eurosat" / "2750", {"Forest": 2, "River": 1}, suffix=".jpg")


def write_svhn(root: Path) -> None:
    for split, shade in (("train", 10), ("test", 20)):
        pixels = np.full((32, 32, 3, 3), shade, dtype=np.uint8)
        pixels[:, :, 1] = 99  # the green channel
        savemat(root / f"{split}_32x32.mat", {"X": pixels, "y": np.array([[10], [1], [2]])})


def write_cifar(folder: Path, train: list[str], test: str, meta: tuple[str, str], label_key: str) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate([*train, test]):
        rows = np.zeros((2, 3072), dtype=np.uint8)
        rows[:, :1024] = number  # the red channel comes first
        (folder / name).write_bytes(pickle.dumps({"data": rows, label_key: [1, 0]}))
    (folder / meta[0]).write_bytes(pickle.dumps({meta[1]: ["first", "second"]}))


def write_cifar10(root: Path) -> None:
    train = [f"data_batch_{number}" for number in range(1, 6)]
    write_cifar(root / "cifar-10-batches-py", train, "test_batch", ("batches.meta", "label_names"), "labels")


def write_cifar100(root: Path) -> None:
    write_cifar(root / "cifar-100-python", ["train"], "test", ("meta", "fine_label_names"), "fine_labels")


def write_omniglot(root: Path) -> None:
    for part, alphabet in (("images_background", "Greek"), ("images_evaluation", "Atlantean")):
        for character in ("character02", "character01"):
            save_image(root / "omniglot-py" / part / alphabet / character / f"{character}_1.png")
        (root / "omniglot-py" / f"{part}.zip").write_bytes(b"")


WRITERS: dict[str, Callable[[Path], None]] = {
    "cars": write_cars,
    "aircraft": write_aircraft,
    "dtd": write_dtd,
    "flowers": write_flowers,
    "pets": write_pets,
    "caltech101": write_caltech,
    "food101": write_food,
    "eurosat": write_eurosat,
    "svhn": write_svhn,
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "omniglot": write_omniglot,
}

EXPECTED: dict[str, tuple[list[str] | None, str, list[int], str]] = {
    # classes (None: not checked), file names, labels, official splits by first letter ("-" for none)
    "cars": (["Audi", "BMW"], "00000 00001 00002 00003 00000 00001 00002 00003", [0, 1, 0, 1] * 2, "tttteeee"),
    "aircraft": (["707-320", "A340 600"], "0000 0001 1000 1001 2000 2001", [0, 1] * 3, "ttvvee"),
    "dtd": (
        ["banded", "dotted"],
        "banded_train dotted_train banded_val dotted_val banded_test dotted_test",
        [0, 1] * 3,
        "ttvvee",
    ),
    "flowers": (None, " ".join(f"image_{number:05d}" for number in range(1, 7)), [0, 1] * 3, "ttvvee"),
    "pets": (["Abyssinian", "Great Dane"], "Abyssinian_1 great_dane_1 Abyssinian_2 great_dane_2", [0, 1] * 2, "ttee"),
    "caltech101": (["accordion", "yin_yang"], "image_0001 image_0002 image_0001 image_0002", [0, 0, 1, 1], "----"),
    "food101": (["apple_pie", "waffles"], "1 1 2 2", [1, 0] * 2, "ttee"),
    "eurosat": (["Forest", "River"], "000 001 000", [0, 0, 1], "---"),
    "omniglot": (
        ["Greek/character01", "Greek/character02", "Atlantean/character01", "Atlantean/character02"],
        "character01_1 character02_1 character01_1 character02_1",
        [0, 1, 2, 3],
        "----",
    ),
    "svhn": ([str(digit) for digit in range(10)], "", [0, 1, 2] * 2, "ttteee"),
    "cifar10": (["first", "second"], "", [1, 0] * 6, "t" * 10 + "ee"),
    "cifar100": (["first", "second"], "", [1, 0] * 2, "ttee"),
}


@pytest.fixture
def any_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces checksums by file existence, because the small copies lack the official checksums."""
    for module in ("svhn", "cifar", "omniglot", "flowers102"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: Path(path).is_file()
        )


def roles_of(listing: Listing) -> str:
    return "".join({"": "-", "train": "t", "val": "v", "test": "e"}[role] for role in listing.roles.tolist())


def test_all_torchvision_datasets_are_covered() -> None:
    known = {name for name in dataset_names() if dataset_spec(name).kind == "torchvision"}
    assert set(WRITERS) == set(EXPECTED) == known


@pytest.mark.usefixtures("any_checksum")
@pytest.mark.parametrize("name", sorted(WRITERS))
def test_official_classes_files_and_splits_are_read(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    before = sorted(tmp_path.rglob("*"))
    listing = read_dataset(resolve(name, tmp_path))
    classes, files, labels, roles = EXPECTED[name]
    assert classes is None or list(listing.class_names) == classes
    assert listing.labels.tolist() == labels and listing.labels.dtype == np.int64
    assert roles_of(listing) == roles
    if files:
        assert [path.stem for path in listing.items] == files.split()
        assert all(path.is_relative_to(tmp_path) for path in listing.items)
    else:
        assert isinstance(listing.items, np.ndarray)
        assert listing.items.shape == (len(labels), 32, 32, 3) and listing.items.dtype == np.uint8
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("any_checksum")
def test_flowers_have_names_for_all_classes(tmp_path: Path) -> None:
    write_flowers(tmp_path)
    assert len(read_dataset(resolve("flowers", tmp_path)).class_names) == dataset_spec("flowers").classes


@pytest.mark.usefixtures("any_checksum")
def test_arrays_have_channels_last(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    write_svhn(tmp_path)
    cifar, svhn = read_dataset(resolve("cifar10", tmp_path)).items, read_dataset(resolve("svhn", tmp_path)).items
    assert isinstance(cifar, np.ndarray) and isinstance(svhn, np.ndarray)
    assert cifar[:, 5, 7].tolist() == [[number, 0, 0] for number in (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5)]
    assert svhn[:, 5, 7].tolist() == [[10, 99, 10]] * 3 + [[20, 99, 20]] * 3


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


def test_a_download_is_complete_and_without_its_archive(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Path] = []

    def fetch(url: str, download_root: str, md5: str) -> None:
        fetched.append(Path(download_root))
        assert not (cache / "eurosat" / "eurosat").exists()
        # Python before 3.11.4 has neither.
        assert getattr(tarfile.TarFile, "extraction_filter", None) is getattr(tarfile, "data_filter", None)
        write_eurosat(Path(download_root).parent)
        (Path(download_root) / "EuroSAT.zip").write_bytes(b"large")

    monkeypatch.setattr("torchvision.datasets.eurosat.download_and_extract_archive", fetch)
    calls: list[tuple[str, int, int]] = []
    for _ in range(2):
        listing = read_dataset(resolve("eurosat"), progress=lambda *call: calls.append(call))
        assert len(listing) == 3
    assert len(fetched) == 1 and calls == [("downloading EuroSAT (RGB)", 0, 0)]
    assert [path.name for path in (cache / "eurosat").iterdir()] == ["eurosat"]
    assert [path.name for path in (cache / "eurosat" / "eurosat").iterdir()] == ["2750"]
    assert "extraction_filter" not in tarfile.TarFile.__dict__


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no route"), RuntimeError("File not found or corrupted."), EOFError()]
)
def test_a_failed_download_names_the_remedy_and_leaves_no_file(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fetch(url: str, download_root: str, md5: str) -> None:
        write_dtd(Path(download_root).parent)  # an incomplete copy, before the download fails
        raise error

    monkeypatch.setattr("torchvision.datasets.dtd.download_and_extract_archive", fetch)
    with pytest.raises(NbtError, match=r"Describable Textures.*--data-dir DIR with DIR/dtd/dtd/labels/test1\.txt"):
        read_dataset(resolve("dtd"))
    assert list((cache / "dtd").iterdir()) == []


def test_an_incomplete_copy_of_the_user_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dtd").mkdir()
    (tmp_path / "dtd" / "user.txt").write_text("keep")

    def fetch(url: str, download_root: str, md5: str) -> None:
        write_dtd(Path(download_root).parent)

    monkeypatch.setattr("torchvision.datasets.dtd.download_and_extract_archive", fetch)
    with pytest.raises(NbtError, match="dtd exists, but is not complete"):
        read_dataset(resolve("dtd", tmp_path))
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["dtd", "dtd/user.txt"]


def test_aircraft_is_downloaded_with_a_checksum(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_aircraft(tmp_path / "source")
    archive = pack(tmp_path / "source" / "fgvc-aircraft-2013b")

    def refuse(*_: Any) -> None:
        raise AssertionError("torchvision's unverified download was used")

    monkeypatch.setattr("torchvision.datasets.fgvc_aircraft.download_and_extract_archive", refuse)
    with serve({"/a.tar.gz": archive}) as address:
        monkeypatch.setattr(torchvision_sets, "_AIRCRAFT_URL", f"{address}/a.tar.gz")
        with pytest.raises(NbtError, match="checksum"):
            read_dataset(resolve("aircraft"))
        assert list((cache / "aircraft").iterdir()) == []
        monkeypatch.setattr(torchvision_sets, "_AIRCRAFT_MD5", hashlib.md5(archive).hexdigest())
        assert roles_of(read_dataset(resolve("aircraft"))) == "ttvvee"


def test_a_damaged_copy_raises_with_its_path(tmp_path: Path) -> None:
    write_dtd(tmp_path)
    (tmp_path / "dtd" / "dtd" / "labels" / "val1.txt").unlink()
    with pytest.raises(NbtError, match=f"cannot be read from {tmp_path} .*val1.txt"):
        read_dataset(resolve("dtd", tmp_path))
