"""Record of the source of a study: its images, and the accuracy of the pretrained weights on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """What is known of the source before any trial.

    Attributes:
        images: Number of source images that could be read.
        classes: Number of their classes.
        matching: How the classes were matched with outputs of the source's classifier: "names", "numbers" or "order".
        references: Value of the setting `backbone` of trials, "" with one backbone -> source accuracy of its
            pretrained weights, 0 ... 1; backbones without a usable classifier are missing.
        copies: Number of images whose pixels are those of an earlier one; 0 for studies of before it was counted.
        near_copies: Number of images that are near copies of an earlier one; 0 for studies of before it was counted.
    """

    images: int
    classes: int
    matching: str
    references: Mapping[str, float]
    copies: int = 0
    near_copies: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the record in JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SourceRecord:
        """Reads the result of `to_dict`.

        Raises:
            TypeError: The values are damaged.
        """
        return cls(**values)
