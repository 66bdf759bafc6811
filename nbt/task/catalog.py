"""The datasets that are known by name, and what `--dataset` may be. Opens no image and imports nothing heavy."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from nbt.errors import UsageError, nearest
from nbt.task.rows import absolute_path

DEFAULT_BACKBONE = "mobilenet_v2"

_PATH_ENDINGS = (".csv", ".tsv", ".txt", ".zip", ".tar", ".tgz", ".gz")


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What is known of a dataset before it is opened.

    Attributes:
        name: What `--dataset` calls it; of a folder or manifest, its last part.
        title: Name for people.
        description: One line: what is told apart, and which splits are official.
        kind: Who reads it: "digits", "cub", "omniglot-small", "torchvision", "folder" or "manifest".
        classes: Number of classes, None where only reading tells.
        images: Number of images of all splits, None where only reading tells.
        image_size: Side in pixels that goes with `default_backbone`; None leaves it to the backbone.
        horizontal_flip: Whether a mirrored image shows the same class.
        default_backbone: Backbone that is used when none is given.
        marker: What a whole copy has below its folder, "" where there is no copy to look for.
        fetched: Whether we can fetch it.
        homepage: Where it comes from.
    """

    name: str
    title: str
    description: str = ""
    kind: str = "torchvision"
    classes: int | None = None
    images: int | None = None
    image_size: int | None = None
    horizontal_flip: bool = True
    default_backbone: str = DEFAULT_BACKBONE
    marker: str = ""
    fetched: bool = True
    homepage: str = ""


@dataclass(frozen=True)
class DatasetSource:
    """A dataset and where it is.

    Attributes:
        dataset: The name, or the absolute path of the folder or manifest.
        spec: What is known of it.
        path: Folder or manifest to read; None for what is embedded, or fetched into the cache.
    """

    dataset: str
    spec: DatasetSpec
    path: Path | None = None

    @property
    def kind(self) -> str:
        """Who reads it, see `DatasetSpec.kind`."""
        return self.spec.kind


_SPECS = (
    DatasetSpec(
        name="digits",
        title="Handwritten digits (scikit-learn)",
        description="digits 5-9, 8 x 8 grey; embedded; its backbone is pretrained on 0-4",
        kind="digits",
        classes=5,
        images=896,
        image_size=28,
        horizontal_flip=False,
        default_backbone="conv3",
        homepage="https://archive.ics.uci.edu/dataset/80",
    ),
    DatasetSpec(
        name="cub",
        title="CUB-200-2011",
        description="bird species; train and test",
        kind="cub",
        classes=200,
        images=11788,
        marker="CUB_200_2011/images.txt",
        homepage="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    ),
    DatasetSpec(
        name="cars",
        title="Stanford Cars",
        description="car models; train and test; needs --data-dir",
        classes=196,
        images=16185,
        marker="stanford_cars/cars_test_annos_withlabels.mat",
        fetched=False,
        homepage="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
    ),
    DatasetSpec(
        name="aircraft",
        title="FGVC-Aircraft",
        description="aircraft variants; train, validation and test",
        classes=100,
        images=10000,
        marker="fgvc-aircraft-2013b/data/images_variant_test.txt",
        homepage="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
    ),
    DatasetSpec(
        name="dtd",
        title="Describable Textures",
        description="textures; train, validation and test (the first of ten partitions)",
        classes=47,
        images=5640,
        marker="dtd/dtd/labels/test1.txt",
        homepage="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
    ),
    DatasetSpec(
        name="flowers",
        title="Oxford Flowers 102",
        description="flower species; train, validation and test",
        classes=102,
        images=8189,
        marker="flowers-102/setid.mat",
        homepage="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    ),
    DatasetSpec(
        name="pets",
        title="Oxford-IIIT Pets",
        description="cat and dog breeds; train and test",
        classes=37,
        images=7349,
        marker="oxford-iiit-pet/annotations/test.txt",
        homepage="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    ),
    DatasetSpec(
        name="caltech101",
        title="Caltech 101",
        description="objects, without the background class; no official split",
        classes=101,
        images=8677,
        marker="caltech101/101_ObjectCategories",
        homepage="https://data.caltech.edu/records/mzrjq-6wc02",
    ),
    DatasetSpec(
        name="food101",
        title="Food-101",
        description="dishes, noisy training labels; train and test",
        classes=101,
        images=101000,
        marker="food-101/meta/test.json",
        homepage="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    ),
    DatasetSpec(
        name="eurosat",
        title="EuroSAT (RGB)",
        description="land use from Sentinel-2, 64 x 64; no official split",
        classes=10,
        images=27000,
        marker="eurosat/2750",
        homepage="https://github.com/phelber/EuroSAT",
    ),
    DatasetSpec(
        name="svhn",
        title="Street View House Numbers",
        description="cropped digits, 32 x 32; train and test, without the extra images",
        classes=10,
        images=99289,
        horizontal_flip=False,
        marker="test_32x32.mat",
        homepage="http://ufldl.stanford.edu/housenumbers/",
    ),
    DatasetSpec(
        name="cifar10",
        title="CIFAR-10",
        description="objects, 32 x 32; train and test",
        classes=10,
        images=60000,
        marker="cifar-10-batches-py/test_batch",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    DatasetSpec(
        name="cifar100",
        title="CIFAR-100",
        description="objects, 32 x 32, fine labels; train and test",
        classes=100,
        images=60000,
        marker="cifar-100-python/test",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    DatasetSpec(
        name="omniglot",
        title="Omniglot",
        description="handwritten characters, 964 of the background and 659 of the evaluation set; no split",
        classes=1623,
        images=32460,
        horizontal_flip=False,
        marker="omniglot-py/images_evaluation",
        homepage="https://github.com/brendenlake/omniglot",
    ),
    DatasetSpec(
        name="omniglot-small",
        title="Omniglot, small background set 1",
        description="characters of 5 alphabets; no split; needs --data-dir",
        kind="omniglot-small",
        classes=136,
        images=2720,
        horizontal_flip=False,
        marker="omniglot_small1.zip",
        fetched=False,
        homepage="https://github.com/brendenlake/omniglot",
    ),
)

_SPECS_BY_NAME = {spec.name: spec for spec in _SPECS}


def dataset_names() -> tuple[str, ...]:
    """Returns the datasets known by name, the embedded one first."""
    return tuple(_SPECS_BY_NAME)


def dataset_spec(name: str) -> DatasetSpec:
    """Returns what is known of a dataset.

    Raises:
        UsageError: There is none of that name; the nearest are given.
    """
    if name not in _SPECS_BY_NAME:
        raise UsageError(f"unknown dataset {name!r}; {nearest(name.lower(), _SPECS_BY_NAME)}")
    return _SPECS_BY_NAME[name]


def resolve(dataset: str | Path, data_dir: str | Path | None = None) -> DatasetSource:
    """Decides what `--dataset` and `--data-dir` mean, and checks them by looks at the file system alone.

    Args:
        dataset: A known name, a folder of class folders, a train/val/test folder of such, a folder in the official
            layout of CUB-200-2011, or a CSV manifest. A name comes first; write "./cub" for a folder of that name.
        data_dir: Where a dataset known by name already is: the folder it unpacks to, or its parent.

    Raises:
        UsageError: There is no such dataset or folder, or one without images or with one class only.
    """
    text = str(dataset)
    folder = None if data_dir is None else _existing_folder(data_dir)
    if text in _SPECS_BY_NAME:
        return _resolve_name(_SPECS_BY_NAME[text], folder)
    path = absolute_path(text)
    if not text.strip() or not os.path.exists(path):  # noqa: PTH110 - pathlib raises where a name is too long
        raise UsageError(_explain_unknown(text))
    if folder is not None:
        raise UsageError(f"--data-dir is for datasets known by name, and --dataset {text} says itself where it is")
    return _resolve_folder(path) if path.is_dir() else _resolve_file(path)


def _existing_folder(data_dir: str | Path) -> Path:
    path = absolute_path(data_dir)
    if not path.is_dir():
        raise UsageError(f"--data-dir {data_dir}: no such folder")
    return path


def _resolve_name(spec: DatasetSpec, data_dir: Path | None) -> DatasetSource:
    if spec.kind == "cub" and data_dir is not None:
        from nbt.task.cub import find_cub

        return DatasetSource(spec.name, spec, find_cub(data_dir))
    if spec.kind == "omniglot-small" and data_dir is not None:
        from nbt.task.omniglot import find_small_omniglot

        return DatasetSource(spec.name, spec, find_small_omniglot(data_dir))
    if not spec.marker and data_dir is not None:
        raise UsageError(f"{spec.name} is embedded and takes no --data-dir")
    root = None if data_dir is None else find_dataset_root(spec, data_dir)
    if not spec.fetched and root is None:
        where = "" if data_dir is None else f" {data_dir}"
        if spec.kind == "omniglot-small":
            raise UsageError(f"{spec.name} is not fetched; give --data-dir DIR with DIR/{spec.marker}")
        raise UsageError(
            f"{spec.name}: {spec.title} can no longer be downloaded; give --data-dir DIR with DIR/{spec.marker} "
            f"and the images beside it{f' (not found at{where})' if where else ''}"
        )
    return DatasetSource(spec.name, spec, root or data_dir)


def find_dataset_root(spec: DatasetSpec, data_dir: Path) -> Path | None:
    """Returns the folder from which a dataset's marker is found: `data_dir` or one above it; None if there is none."""
    depth = spec.marker.count("/")
    for folder in (data_dir, *list(data_dir.parents)[:depth]):
        if (folder / spec.marker).exists():
            return folder
    return None


def _resolve_folder(path: Path) -> DatasetSource:
    from nbt.task.cub import FOLDER, is_cub
    from nbt.task.folders import check_image_folder

    for folder in (path, path / FOLDER):
        if is_cub(folder):
            cub = _SPECS_BY_NAME["cub"]
            spec = dataclasses.replace(cub, name=path.name, classes=None, images=None, fetched=False)
            return DatasetSource(str(path), spec, folder)
    check_image_folder(path)
    return DatasetSource(str(path), _custom_dataset_spec(path, "folder"), path)


def _resolve_file(path: Path) -> DatasetSource:
    from nbt.task.manifest import read_manifest

    if path.suffix.lower() != ".csv":
        raise UsageError(f"{path} is a file, but no .csv; a dataset is a name, a folder or a CSV of path,label[,split]")
    read_manifest(path)
    return DatasetSource(str(path), _custom_dataset_spec(path, "manifest"), path)


def _custom_dataset_spec(path: Path, kind: str) -> DatasetSpec:
    return DatasetSpec(name=path.name or str(path), title=str(path), kind=kind, fetched=False)


def _explain_unknown(text: str) -> str:
    looks_like_path = "/" in text or os.sep in text or text.startswith((".", "~")) or text.endswith(_PATH_ENDINGS)
    if looks_like_path:
        return f"--dataset {text}: no such folder or file"
    return f"unknown dataset {text!r} (and no such folder or CSV file); {nearest(text.lower(), _SPECS_BY_NAME)}"
