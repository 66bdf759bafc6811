"""Which names and recorded tables are of the same dataset."""

from __future__ import annotations

from pathlib import Path

from nbt.tuning.experience.recorded_table import TableHeader

# Other names of datasets whose tables come with nbt, in lower case.
_ALIASES = {"cub_200_2011": "cub", "cub50": "cub"}


def canonical_dataset(name: str) -> str:
    """Returns the name by which a dataset is compared with others, in lower case.

    Args:
        name: Name of a dataset, or path of its images.
    """
    stem = Path(name).stem.lower()
    return _ALIASES.get(stem, stem)


def is_same_dataset(a: TableHeader, b: TableHeader) -> bool:
    """Returns whether two recorded tables are of the same dataset, by name or by images and split.

    Tables of another backbone, other shots or another recording of a dataset hold information on it, too.
    """
    return a.data_hash == b.data_hash or canonical_dataset(a.dataset) == canonical_dataset(b.dataset)
