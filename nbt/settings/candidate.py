"""Candidates: the pretrained backbones that a search chooses from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nbt.errors import UsageError, nearest
from nbt.yaml_loader import parse_yaml_list

Checks = Mapping[str, Callable[[Any], object]]
"""Function that raises UsageError for a wrong value, by the name of the value."""

BACKBONE_LISTS = ("small", "medium", "large")
"""Names of the lists of backbones that are shipped, in files of the folder `backbone_lists`."""

_KEYS = ("name", "weights", "image_size", "licence", "text")
_NO_CHECKS: Checks = MappingProxyType({})
_FORM = "a backbone, a pair of backbone and weights, or a mapping with " + ", ".join(_KEYS)


class _KeyError(UsageError):
    """A wrong key of a candidate, or a wrong value of it."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A pretrained backbone that a search may choose.

    Attributes:
        name: Backbone, as in `--backbone`.
        weights: "default", "none" or a file.
        image_size: Height and width of its images in pixels; that of the search when None.
        licence: Licence of the weights, for reports.
        text: Remark for reports.
        place: File and line of its weights, or of the candidate, as in "list.yaml, line 3"; "" outside of files.
    """

    name: str
    weights: str = "default"
    image_size: int | None = None
    licence: str = ""
    text: str = ""
    place: str = field(default="", compare=False)

    @classmethod
    def of(cls, value: Any) -> Candidate:
        """Reads a candidate from one item of `backbones`.

        Raises:
            UsageError: A key is unknown (the nearest is named), or a value is of another type.
        """
        if isinstance(value, Candidate):
            return value
        if isinstance(value, str):
            value = {"name": value}
        elif isinstance(value, list | tuple) and len(value) == 2:
            value = {"name": value[0], "weights": value[1]}
        if not isinstance(value, Mapping):
            raise UsageError(f"expected {_FORM}, got {value!r:.80}")
        for key in value:
            if key not in _KEYS:
                raise _KeyError(key, f"unknown key {key!r}; {nearest(str(key), _KEYS)}")
        texts = {key: str(item) if isinstance(item, Path) else item for key, item in value.items()}
        size = texts.pop("image_size", None)
        if size is not None and type(size) is not int:
            raise _KeyError("image_size", f"image_size: expected a whole number, got {size!r}")
        for key, item in texts.items():
            if not isinstance(item, str) or "\n" in item.strip():
                raise _KeyError(key, f"{key}: expected one line of text, got {item!r:.80}")
        if not texts.get("weights", "none").strip():
            raise _KeyError("weights", "weights: expected default, none or a file, got an empty text")
        if not texts.get("name"):
            raise UsageError(f"no name; expected {_FORM}")
        return cls(image_size=size, **{key: item.strip() for key, item in texts.items()})

    def to_dict(self) -> dict[str, Any]:
        """Returns the candidate as an item of `backbones`, without what is not given."""
        neutral = asdict(Candidate(name=""))
        return {key: value for key, value in asdict(self).items() if value != neutral[key] and key in _KEYS}


def parse_candidates(value: Any, checks: Checks = _NO_CHECKS) -> tuple[Candidate, ...]:
    """Reads candidates from a list, from YAML or JSON text of one, or from a YAML file.

    Args:
        value: Items as `Candidate.of` reads them, a text that starts with "[", the name of a shipped list, or the path
            of a file. Files of weights in it are relative to its folder.
        checks: Further checks of the values of keys.

    Raises:
        UsageError: The file cannot be read, or an item is wrong or given twice; the message names the line of a file,
            or the number of the item.
    """
    if value in BACKBONE_LISTS:
        value = Path(__file__).parent / "backbone_lists" / f"{value}.yaml"
    if isinstance(value, str | Path) and not str(value).lstrip().startswith("["):
        return _read_file(Path(value), checks)
    if isinstance(value, str):
        value = [item for _, item in parse_yaml_list(value, source="backbones", items="backbones")]
    if not isinstance(value, list | tuple):
        raise UsageError(f"backbones: expected a list or a file, got {value!r:.80}")
    items = [({"": f"backbones, item {number}"}, item) for number, item in enumerate(value, start=1)]
    return tuple(candidate for candidate, _ in _checked("backbones", items, checks))


def candidates_text(value: Any) -> str:
    """Returns candidates as one line of JSON; `parse_candidates` reads it, and its errors are those of it."""
    return json.dumps([candidate.to_dict() for candidate in parse_candidates(value)])


def _read_file(path: Path, checks: Checks) -> tuple[Candidate, ...]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UsageError(
            f"--backbones {path}: cannot be read as a file ({reason}); give {', '.join(BACKBONE_LISTS)}, a YAML list "
            "of backbones, the path of one, or a single backbone as --backbone"
        ) from error
    found = _checked(str(path), parse_yaml_list(text, source=str(path), items="backbones"), checks)
    return tuple(
        replace(_with_absolute_weights(candidate, path.parent), place=places.get("weights", places[""]))
        for candidate, places in found
    )


def _with_absolute_weights(candidate: Candidate, folder: Path) -> Candidate:
    if candidate.weights in ("default", "none"):
        return candidate
    path = (folder / Path(candidate.weights).expanduser()).absolute()
    return replace(candidate, weights=str(path))


def _checked(
    source: str, items: Iterable[tuple[Mapping[str, str], Any]], checks: Checks
) -> list[tuple[Candidate, Mapping[str, str]]]:
    """Returns the candidates of items, each with its places; see `nbt.yaml_loader.parse_yaml_list`."""
    found: dict[Candidate, Mapping[str, str]] = {}
    for places, item in items:
        key = ""
        try:
            candidate = Candidate.of(item)
            for key, check in checks.items():
                check(getattr(candidate, key))
        except UsageError as error:
            key = error.key if isinstance(error, _KeyError) else key
            raise UsageError(f"{places.get(key, places[''])}: {error}") from error
        if candidate in found:
            raise UsageError(f"{places['']}: {candidate.name} is given twice")
        found[candidate] = places
    if not found:
        raise UsageError(f"{source}: expected at least one backbone")
    return list(found.items())
