"""Interprets the options `dataset` and `data_dir`: a name, a folder or a manifest, checked without opening an image."""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from nbt.data.catalog import DatasetSpec, dataset_names, dataset_spec, find_dataset_root
from nbt.errors import UsageError
from nbt.paths import absolute_path

_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
_PATH_SUFFIXES = (".csv", ".tsv", ".txt", *_ARCHIVE_SUFFIXES)


@dataclass(frozen=True)
class DatasetSource:
    """A dataset and its location.

    Attributes:
        dataset: Name of the dataset, or the absolute path of the folder or manifest.
        spec: Description of the dataset.
        path: Folder or manifest to read; None for an embedded dataset or a download in the cache.
    """

    dataset: str
    spec: DatasetSpec
    path: Path | None = None

    @property
    def kind(self) -> str:
        """Kind of reader, see `DatasetSpec.kind`."""
        return self.spec.kind


def resolve(dataset: str | Path, data_dir: str | Path | None = None) -> DatasetSource:
    """Interprets `--dataset` and `--data-dir` and checks them without opening an image.

    Args:
        dataset: A known name, a folder of class folders, a train/val/test folder of such, a folder in the official
            layout of CUB-200-2011, or a CSV manifest. Names take precedence over paths; "./cub" is a folder.
        data_dir: Location of a dataset known by name: the folder that it unpacks to, or its parent.

    Raises:
        UsageError: The dataset, file or folder does not exist, has no images or one class only, or `data_dir` is given
            for a dataset that does not take one.
    """
    text = str(dataset)
    folder = None if data_dir is None else _existing_folder(data_dir)
    if text in dataset_names():
        return _resolve_name(dataset_spec(text), folder)
    path = check_exists(text)
    if folder is not None:
        raise UsageError(f"--data-dir is for datasets known by name; --dataset {text} is a path already")
    return _resolve_folder(path) if path.is_dir() else _resolve_file(path)


def check_exists(dataset: str) -> Path:
    """Returns the absolute path of a dataset that is not known by name.

    Raises:
        UsageError: There is no such file or folder.
    """
    path = absolute_path(dataset)
    if not dataset.strip() or not os.path.exists(path):  # noqa: PTH110 - pathlib raises where a name is too long
        raise UsageError(_explain_unknown(dataset))
    return path


def _existing_folder(data_dir: str | Path) -> Path:
    path = absolute_path(data_dir)
    if not path.is_dir():
        raise UsageError(f"--data-dir {data_dir}: no such folder")
    return path


def _resolve_name(spec: DatasetSpec, data_dir: Path | None) -> DatasetSource:
    if spec.kind == "cub" and data_dir is not None:
        from nbt.data.readers.cub import find_cub

        return DatasetSource(spec.name, spec, find_cub(data_dir))
    if spec.kind == "omniglot-small" and data_dir is not None:
        from nbt.data.readers.omniglot import find_small_omniglot

        return DatasetSource(spec.name, spec, find_small_omniglot(data_dir))
    if not spec.marker and data_dir is not None:
        raise UsageError(f"{spec.name} is embedded and takes no --data-dir")
    root = None if data_dir is None else find_dataset_root(spec, data_dir)
    if not spec.fetched and root is None:
        if spec.kind == "omniglot-small":
            raise UsageError(f"{spec.name} is not downloaded automatically; give --data-dir DIR with DIR/{spec.marker}")
        not_found = "" if data_dir is None else f" (not found at {data_dir})"
        raise UsageError(
            f"{spec.name}: {spec.title} can no longer be downloaded; give --data-dir DIR with DIR/{spec.marker} "
            f"and its images in the same folder{not_found}"
        )
    return DatasetSource(spec.name, spec, root or data_dir)


def _resolve_folder(path: Path) -> DatasetSource:
    from nbt.data.readers.cub import FOLDER, is_cub
    from nbt.data.readers.image_folder import check_image_folder

    for folder in (path, path / FOLDER):
        if is_cub(folder):
            cub = dataset_spec("cub")
            spec = dataclasses.replace(cub, name=path.name, classes=None, images=None, fetched=False)
            return DatasetSource(str(path), spec, folder)
    check_image_folder(path)
    return DatasetSource(str(path), _custom_dataset_spec(path, "folder"), path)


def _resolve_file(path: Path) -> DatasetSource:
    from nbt.data.readers.manifest import SUFFIXES, read_manifest

    if path.suffix.lower() not in SUFFIXES:
        instead = "; unpack it first" if path.suffix.lower() in _ARCHIVE_SUFFIXES else ""
        raise UsageError(
            f"{path} is a file, but no .csv or .tsv; a dataset is a name, a folder or a CSV of path,label[,split]"
            f"{instead}"
        )
    read_manifest(path)
    return DatasetSource(str(path), _custom_dataset_spec(path, "manifest"), path)


def _custom_dataset_spec(path: Path, kind: str) -> DatasetSpec:
    return DatasetSpec(name=path.name or str(path), title=str(path), kind=kind, fetched=False)


def _explain_unknown(text: str) -> str:
    looks_like_path = "/" in text or os.sep in text or text.startswith((".", "~")) or text.endswith(_PATH_SUFFIXES)
    if looks_like_path:
        return f"--dataset {text}: no such folder or file"
    close = difflib.get_close_matches(text.lower(), dataset_names(), n=3, cutoff=0.7)
    hint = f"did you mean {', '.join(close)}?" if close else "nbt datasets lists the known names"
    return f"unknown dataset {text!r} (and no such folder or CSV file); {hint}"
