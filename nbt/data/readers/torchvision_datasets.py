"""Reads datasets through torchvision, with their official splits; downloads are complete or leave no file."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbt.data.catalog import DatasetSpec, dataset_spec, find_dataset_root
from nbt.data.download import fetch_archive, move_into_place, temporary_folder
from nbt.data.image_files import image_files, subfolders
from nbt.data.listing import Items, Listing
from nbt.errors import NbtError, one_line_message
from nbt.paths import cache_folder
from nbt.progress import Progress

_AIRCRAFT_URL = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz"
_AIRCRAFT_MD5 = "d4acdd33327262359767eeaa97a4f732"


ConstructorCall = tuple[str, Mapping[str, Any]]
"""The official split that a part of a dataset has, or "", and the keyword arguments of torchvision's class for it."""


@dataclass(frozen=True)
class TorchvisionReader:
    """How a dataset is read through torchvision's class.

    Attributes:
        class_name: Name of the class in `torchvision.datasets`.
        parts: The constructor calls.
        read: Converts an instance to items, labels and class names.
        disjoint_classes: Whether the parts have disjoint classes instead of the same ones.
        keep_archive: Whether the class needs the archive after unpacking.
    """

    class_name: str
    parts: tuple[ConstructorCall, ...]
    read: Callable[[Any], tuple[Items, list[int], list[str]]]
    disjoint_classes: bool = False
    keep_archive: bool = False


def read_torchvision(name: str, data_dir: Path | None = None, *, progress: Progress | None = None) -> Listing:
    """Lists the images of a torchvision dataset with its official split.

    Args:
        name: A known dataset of the kind "torchvision".
        data_dir: Folder of the dataset, or target of the download; the cache when None.
        progress: Called when a download begins; torchvision shows the bytes itself.

    Raises:
        NbtError: The dataset cannot be downloaded or read; the message names the remedy.
    """
    spec, reader = dataset_spec(name), _READERS[name]
    root = data_dir or cache_folder("datasets", name)
    try:
        existing = find_dataset_root(spec, root) if data_dir else (root if (root / spec.marker).exists() else None)
        if existing is None:
            _fetch(spec, reader, root, progress)
        parts = [reader.read(_build(reader, arguments, existing or root)) for _, arguments in reader.parts]
    except NbtError as error:
        raise NbtError(f"{spec.title}: {error}; {_data_dir_hint(spec)}") from error
    except Exception as error:  # RuntimeError, ValueError, KeyError and errors of SciPy and pickle
        raise NbtError(
            f"{spec.title} cannot be read from {existing or root} ({one_line_message(error, 200)}); "
            f"{_data_dir_hint(spec)}"
        ) from error
    return _merge(spec.name, reader, parts)


def _data_dir_hint(spec: DatasetSpec) -> str:
    return f"to use an existing copy, give --data-dir DIR with DIR/{spec.marker} (see {spec.homepage})"


def _build(reader: TorchvisionReader, arguments: Mapping[str, Any], root: Path, *, download: bool = False) -> Any:
    from torchvision import datasets

    options = {"download": True} if download else {}
    return getattr(datasets, reader.class_name)(str(root), **arguments, **options)


def _fetch(spec: DatasetSpec, reader: TorchvisionReader, root: Path, progress: Progress | None) -> None:
    """Downloads a dataset into a temporary folder inside `root`, and moves the result into place."""
    if spec.name == "aircraft":  # torchvision does not verify its checksum
        fetch_archive(_AIRCRAFT_URL, _AIRCRAFT_MD5, root, "fgvc-aircraft-2013b", progress=progress)
        return
    if progress:
        progress(f"downloading {spec.title}", 0, 0)
    with temporary_folder(root) as temporary:
        with _guarded_extraction():
            for _, arguments in reader.parts:
                _build(reader, arguments, temporary, download=True)
        if not reader.keep_archive:
            for archive in [path for path in temporary.rglob("*") if path.suffix in (".gz", ".tgz", ".zip")]:
                archive.unlink()
        for child in list(temporary.iterdir()):
            move_into_place(child, root / child.name)


@contextlib.contextmanager
def _guarded_extraction() -> Iterator[None]:
    """Keeps torchvision's unpacking inside its folder, which is not the default before Python 3.14."""
    if not hasattr(tarfile, "data_filter"):
        yield
        return
    earlier = tarfile.TarFile.__dict__.get("extraction_filter")
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        if earlier is None:
            del tarfile.TarFile.extraction_filter
        else:
            tarfile.TarFile.extraction_filter = earlier


def _merge(name: str, reader: TorchvisionReader, parts: list[tuple[Items, list[int], list[str]]]) -> Listing:
    """Merges the items, labels and class names of the parts."""
    class_names: list[str] = [] if reader.disjoint_classes else list(parts[0][2])
    items: list[Any] = []
    labels: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    roles: list[str] = []
    for (role, _), (part_items, part_labels, part_names) in zip(reader.parts, parts, strict=True):
        offset = len(class_names) if reader.disjoint_classes else 0
        class_names += part_names if reader.disjoint_classes else []
        items.append(part_items)
        labels.append(np.asarray(part_labels, dtype=np.int64) + offset)
        roles += [role] * len(part_labels)
    in_memory = isinstance(items[0], np.ndarray)
    return Listing(
        name=name,
        class_names=tuple(class_names),
        items=np.concatenate(items) if in_memory else [path for part in items for path in part],
        labels=np.concatenate(labels),
        roles=np.array(roles, dtype="<U5"),
    )


def _read_files(data: Any) -> tuple[Items, list[int], list[str]]:
    """Reads Aircraft, DTD, Food-101 and Pets."""
    files = data._images if hasattr(data, "_images") else data._image_files
    return [Path(path) for path in files], list(data._labels), list(data.classes)


def _read_flowers(data: Any) -> tuple[Items, list[int], list[str]]:
    names = getattr(data, "classes", None) or [str(number) for number in range(1, 103)]  # torchvision 0.22 and later
    return [Path(path) for path in data._image_files], list(data._labels), list(names)


def _read_samples(data: Any) -> tuple[Items, list[int], list[str]]:
    """Reads Cars and EuroSAT."""
    samples = data.samples if hasattr(data, "samples") else data._samples
    return [Path(path) for path, _ in samples], [int(label) for _, label in samples], list(data.classes)


def _read_caltech(data: Any) -> tuple[Items, list[int], list[str]]:
    folder = Path(data.root, "101_ObjectCategories")
    paths = [folder / data.categories[y] / f"image_{i:04d}.jpg" for i, y in zip(data.index, data.y, strict=True)]
    return paths, list(data.y), list(data.categories)


def _read_cifar(data: Any) -> tuple[Items, list[int], list[str]]:
    return np.ascontiguousarray(data.data), list(data.targets), list(data.classes)


def _read_svhn(data: Any) -> tuple[Items, list[int], list[str]]:
    return np.ascontiguousarray(data.data.transpose(0, 2, 3, 1)), data.labels.tolist(), [str(i) for i in range(10)]


def _read_omniglot(data: Any) -> tuple[Items, list[int], list[str]]:
    """Reads Omniglot with one class per character, sorted; torchvision uses the order of the file system."""
    characters = [character for alphabet in subfolders(Path(data.target_folder)) for character in subfolders(alphabet)]
    names = [f"{character.parent.name}/{character.name}" for character in characters]
    labelled = [(path, label) for label, character in enumerate(characters) for path in image_files(character)]
    return [path for path, _ in labelled], [label for _, label in labelled], names


def _split_calls(*names: str) -> tuple[ConstructorCall, ...]:
    return tuple(("train" if name == "trainval" else name, {"split": name}) for name in names)


_TRAIN_TEST: tuple[ConstructorCall, ...] = (("train", {"train": True}), ("test", {"train": False}))

_READERS = {
    "cars": TorchvisionReader("StanfordCars", _split_calls("train", "test"), _read_samples),
    "aircraft": TorchvisionReader("FGVCAircraft", _split_calls("train", "val", "test"), _read_files),
    "dtd": TorchvisionReader("DTD", _split_calls("train", "val", "test"), _read_files),
    "flowers": TorchvisionReader("Flowers102", _split_calls("train", "val", "test"), _read_flowers),
    "pets": TorchvisionReader("OxfordIIITPet", _split_calls("trainval", "test"), _read_files),
    "caltech101": TorchvisionReader("Caltech101", (("", {}),), _read_caltech),
    "food101": TorchvisionReader("Food101", _split_calls("train", "test"), _read_files),
    "eurosat": TorchvisionReader("EuroSAT", (("", {}),), _read_samples),
    "svhn": TorchvisionReader("SVHN", _split_calls("train", "test"), _read_svhn),
    "cifar10": TorchvisionReader("CIFAR10", _TRAIN_TEST, _read_cifar),
    "cifar100": TorchvisionReader("CIFAR100", _TRAIN_TEST, _read_cifar),
    "omniglot": TorchvisionReader(
        "Omniglot",
        (("", {"background": True}), ("", {"background": False})),
        _read_omniglot,
        disjoint_classes=True,
        keep_archive=True,
    ),
}
