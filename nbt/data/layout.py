"""Layout: how the folder of a dataset was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """How the folder of a dataset was read.

    Attributes:
        folder: The folder that the user named.
        parts: Folder of the class folders by split, "train", "val" or "test"; by "" where there are no splits.
        split_inside_class: Whether each class folder holds folders of splits, instead of the opposite.
    """

    folder: Path
    parts: Mapping[str, Path] = field(default_factory=dict)
    split_inside_class: bool = False

    def name(self, path: Path) -> str:
        """Returns a path relative to the folder."""
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else str(path)
