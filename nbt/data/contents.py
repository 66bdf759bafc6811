"""Contents: the images of a task by name, bytes, class and part, in a compact form that is stored with a study."""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from nbt.data.listing import Listing, relative_names

_HASH_BYTES = 8
_MAX_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Contents:
    """The images of a task, N in number.

    Attributes:
        classes: Class names in the order of the labels.
        names: Paths of the files relative to their common folder, (N,).
        hashes: First 8 bytes of the hash of each file, in hexadecimal digits, (N,).
        labels: Class indices, (N,).
        roles: Official splits, (N,).
        options: Options that change the pixels, in words.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    hashes: tuple[str, ...]
    labels: tuple[int, ...]
    roles: tuple[str, ...]
    options: tuple[str, ...] = ()

    @classmethod
    def of(cls, listing: Listing, options: tuple[str, ...] = ()) -> Contents | None:
        """Returns the contents of a listing with hashes; None for images in memory."""
        if isinstance(listing.items, np.ndarray) or listing.hashes is None:
            return None
        return cls(
            classes=listing.class_names,
            names=tuple(relative_names(listing.items)),
            hashes=tuple(of_file.tobytes().hex() for of_file in listing.hashes[:, :_HASH_BYTES]),
            labels=tuple(listing.labels.tolist()),
            roles=tuple(listing.roles.tolist()),
            options=options,
        )

    def to_bytes(self) -> bytes:
        """Returns the contents compressed, some 13 bytes per image; see `from_bytes`."""
        return zlib.compress(json.dumps(vars(self)).encode())

    @classmethod
    def from_bytes(cls, content: bytes) -> Contents:
        """Returns the contents of `to_bytes`.

        Raises:
            ValueError: The bytes are damaged.
        """
        try:
            return cls(**{name: tuple(values) for name, values in json.loads(zlib.decompress(content)).items()})
        except (zlib.error, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"the stored list of images is damaged: {error}") from error

    def equals_apart_from_names(self, other: Contents) -> bool:
        """Returns whether both have the same files, classes, parts and options in the same order."""
        return {**vars(self), "names": None} == {**vars(other), "names": None}


@dataclass(frozen=True)
class _Image:
    name: str
    bytes: str
    label: str
    role: str


@dataclass
class _Changes:
    """Names of the images that changed, by kind of change, in the words of the message."""

    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def compare(self, before: _Image, now: _Image) -> None:
        """Adds how an image differs from what it was."""
        if before.bytes != now.bytes:
            self.found["changed"].append(now.name)
        if before.label != now.label:
            self.found["with another label"].append(f"{now.name}: {before.label}, now {now.label}")
        if before.role != now.role:
            self.found["in another part"].append(f"{now.name}: {before.role or 'none'}, now {now.role or 'none'}")

    def describe(self) -> str:
        """Returns the numbers of changes with up to five names each."""
        return ", ".join(
            f"{len(names):,} {kind} ({'; '.join(names[:_MAX_NAMES_SHOWN])}"
            f"{' ...' if len(names) > _MAX_NAMES_SHOWN else ''})"
            for kind, names in self.found.items()
        )


def describe_changes(before: Contents, now: Contents) -> str:
    """Returns how images differ from what they were, in words; "" if only their order or nothing differs.

    Unless images differ, the options are compared.

    Images of the same name are compared. One whose name is gone is the same as a new one with the same bytes.
    """
    old, new = _by_name(before), _by_name(now)
    changes = _Changes()
    for name in sorted(old.keys() & new.keys()):
        changes.compare(old[name], new[name])
    added = defaultdict(list)
    for name in sorted(new.keys() - old.keys(), reverse=True):
        added[new[name].bytes].append(new[name])
    for name in sorted(old.keys() - new.keys()):
        same = added[old[name].bytes]
        if same:
            moved = same.pop()
            changes.compare(old[name], moved)
            if (old[name].label, old[name].role) == (moved.label, moved.role):
                changes.found["renamed"].append(f"{name}, now {moved.name}")
        else:
            changes.found["removed"].append(name)
    names = sorted(image.name for images in added.values() for image in images)
    if names:
        changes.found["added"] = names
    if changes.found or before.options == now.options:
        return changes.describe()
    return f"{', '.join(before.options)} before, {', '.join(now.options)} now"


def _by_name(contents: Contents) -> dict[str, _Image]:
    rows = zip(contents.names, contents.hashes, contents.labels, contents.roles, strict=True)
    return {name: _Image(name, of_file, contents.classes[label], role) for name, of_file, label, role in rows}
