"""The datasets that are known by name, described without opening an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nbt.errors import UsageError, nearest

DEFAULT_BACKBONE = "mobilenet_v2"


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Description of a dataset, known before its images are read.

    Attributes:
        name: Name for `--dataset`; for a folder or manifest, the last part of its path.
        title: Full name, for display.
        description: One line: what the classes are, and which splits are official.
        kind: The reader: "digits", "numbers", "cub", "omniglot-small", "torchvision", "folder" or "manifest".
        classes: Number of classes, None where it is unknown before reading.
        images: Number of images of all splits, None where it is unknown before reading.
        image_size: Height and width in pixels that go with `default_backbone`; None for the backbone's default.
        mirror: Whether a mirrored image shows the same class.
        default_backbone: Backbone that is used when none is given.
        marker: Path, relative to the dataset's root folder, that exists in every complete copy; "" for embedded
            datasets.
        fetched: Whether nbt can download the dataset.
        homepage: URL of the dataset.
    """

    name: str
    title: str
    description: str = ""
    kind: str = "torchvision"
    classes: int | None = None
    images: int | None = None
    image_size: int | None = None
    mirror: bool = True
    default_backbone: str = DEFAULT_BACKBONE
    marker: str = ""
    fetched: bool = True
    homepage: str = ""


_SPECS = (
    DatasetSpec(
        name="digits",
        title="Handwritten digits (scikit-learn)",
        description="digits 5-9, 8 x 8 grey; embedded; its backbone is pretrained on 0-4",
        kind="digits",
        classes=5,
        images=896,
        image_size=28,
        mirror=False,
        default_backbone="conv3",
        homepage="https://archive.ics.uci.edu/dataset/80",
    ),
    DatasetSpec(
        name="numbers",
        title="Two-digit numbers (scikit-learn's digits)",
        description="55-99 of two digits 5-9, 16 x 16 grey; test; embedded; its backbone is pretrained on 00-44",
        kind="numbers",
        classes=25,
        images=1500,
        image_size=28,
        mirror=False,
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
        mirror=False,
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
        mirror=False,
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
        mirror=False,
        marker="omniglot_small1.zip",
        fetched=False,
        homepage="https://github.com/brendenlake/omniglot",
    ),
)

_SPECS_BY_NAME = {spec.name: spec for spec in _SPECS}


def dataset_names() -> tuple[str, ...]:
    """Returns the names of the known datasets, the embedded ones first."""
    return tuple(_SPECS_BY_NAME)


def dataset_spec(name: str) -> DatasetSpec:
    """Returns the description of a dataset.

    Raises:
        UsageError: No dataset has that name; the message suggests similar ones.
    """
    if name not in _SPECS_BY_NAME:
        raise UsageError(f"unknown dataset {name!r}; {nearest(name.lower(), _SPECS_BY_NAME)}")
    return _SPECS_BY_NAME[name]


def find_dataset_root(spec: DatasetSpec, data_dir: Path) -> Path | None:
    """Returns the folder that contains a dataset's marker: `data_dir` or one of its parents; None if there is none."""
    depth = spec.marker.count("/")
    for folder in (data_dir, *list(data_dir.parents)[:depth]):
        if (folder / spec.marker).exists():
            return folder
    return None
