"""Names of backbones: what there is and what was asked for, without importing torch."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from nbt.errors import UsageError, nearest

ENCODERS = ("conv3", "conv4")
_RESERVED = {
    "weights": "give it with --weights",
    "pretrained": "give it with --weights",
    "num_classes": "the dataset decides it",
    "progress": "it is shown anyway",
}
_BUILDER = re.compile(r"@register_model\(\)(?:\s*@[^\n]*)*\s*def (\w+)\(")


@dataclass(frozen=True)
class BackboneSpec:
    """An architecture with its keyword arguments.

    Attributes:
        name: Builder, e.g. "mobilenet_v2".
        kwargs: Keyword arguments in alphabetical order, plain Python values.
    """

    name: str
    kwargs: tuple[tuple[str, Any], ...] = field(default=())

    @property
    def text(self) -> str:
        """Canonical text: "mobilenet_v2", "mobilenet_v2(width_mult=0.35)"; `parse_backbone` reads it back."""
        inside = ", ".join(f"{key}={value!r}" for key, value in self.kwargs)
        return f"{self.name}({inside})" if inside else self.name

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments as a new mapping."""
        return dict(self.kwargs)


@cache
def backbone_names() -> tuple[str, ...]:
    """Returns all known names, sorted: our encoders and torchvision's classifiers, read from its source."""
    return tuple(sorted({*ENCODERS, *_torchvision_names()}))


def _torchvision_names() -> set[str]:
    spec = importlib.util.find_spec("torchvision")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [path for folder in folders for path in (Path(folder) / "models").glob("*.py")]
    return {name for path in files for name in _BUILDER.findall(path.read_text(encoding="utf-8"))}


def parse_backbone(text: str) -> BackboneSpec:
    """Reads "NAME" or "NAME(key=value, ...)"; values are Python literals.

    Raises:
        UsageError: The text has another form, the name is unknown, or an argument is not the user's to give.
    """
    name, kwargs = _parse_call(text.strip())
    if name not in backbone_names():
        raise UsageError(f"unknown backbone {name!r}; {nearest(name, backbone_names())}")
    for key in kwargs:
        if key in _RESERVED:
            raise UsageError(f"backbone {text!r}: {key} cannot be given here; {_RESERVED[key]}")
    return BackboneSpec(name, tuple(sorted(kwargs.items())))


def _parse_call(text: str) -> tuple[str, Mapping[str, Any]]:
    if re.fullmatch(r"\w+", text):
        return text, {}
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        call = None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise UsageError(f"backbone {text!r}: write a name, or a name with keyword arguments as NAME(width_mult=0.35)")
    kwargs: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise UsageError(f"backbone {text!r}: arguments are given one by one, as NAME(width_mult=0.35)")
        try:
            kwargs[keyword.arg] = _plain(ast.literal_eval(keyword.value))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
            raise UsageError(f"backbone {text!r}: the value of {keyword.arg} is not a plain number or text") from error
    return call.func.id, kwargs


def _plain(value: Any) -> Any:
    """Returns a value that can be hashed and compared; what cannot be written back is refused."""
    if isinstance(value, list):
        return tuple(_plain(item) for item in value)
    if isinstance(value, (bool, int, float, str, type(None))):
        if isinstance(value, float) and value - value != 0:
            raise ValueError("not finite")
        return value
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    raise ValueError("not plain")
