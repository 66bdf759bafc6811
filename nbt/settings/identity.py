"""Identity of settings: which fields enter stored hashes and checkpoints."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SINCE = "since"
"""Key of a field's metadata: the version that added the field. Fields of version 0.1 do not have it."""


def identity_fields(settings: DataclassInstance, values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values by which two settings differ as far as stored hashes and checkpoints are concerned.

    A field that was added after version 0.1 is left out while it has its default, which must be its neutral value. So a
    new field changes neither the hash of settings that were stored without it nor the checkpoints of running trials.

    Args:
        settings: A dataclass of settings; the metadata of newer fields has `SINCE`.
        values: Its fields in JSON types, as `to_dict` returns them; fields that are missing stay missing.
    """
    added = {item.name: item.default for item in dataclasses.fields(settings) if SINCE in item.metadata}
    return {
        name: value for name, value in values.items() if name not in added or getattr(settings, name) != added[name]
    }
