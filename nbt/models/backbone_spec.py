"""Names and arguments of backbones, without importing PyTorch."""

from __future__ import annotations

import ast
import importlib.util
import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nbt.errors import UsageError, nearest

ENCODER_NAMES = ("conv3", "conv4")
TIMM_PREFIX = "timm:"
"""Prefix of the names of timm's models."""

_RESERVED_ARGUMENTS = {
    "weights": "give --weights",
    "pretrained": "give --weights",
    "checkpoint_path": "give --weights",
    "num_classes": "the dataset decides it",
    "progress": "it changes nothing",
}
_BUILDER_PATTERN = re.compile(r"^@register_model\(\)\n.*?^def (\w+)\(", re.MULTILINE | re.DOTALL)
_CALL_PATTERN = re.compile(r"\s*((?:timm:)?[\w./-]+)\s*(?:\((.*)\))?\s*", re.DOTALL)
_MAX_NUMBER = 2**63
_SYNTAX_HELP = "write a name, or a name with keyword arguments such as mobilenet_v2(width_mult=0.35)"


class MissingTimmError(UsageError):
    """timm, which a backbone needs, is not installed."""


@dataclass(frozen=True)
class BackboneSpec:
    """An architecture with its keyword arguments.

    Attributes:
        name: Name of the builder, e.g. "mobilenet_v2" or "timm:resnet18".
        kwargs: Keyword arguments in alphabetical order; values are numbers, strings, booleans, None, and tuples of
            these.
    """

    name: str
    kwargs: tuple[tuple[str, Any], ...] = ()

    @property
    def text(self) -> str:
        """Canonical text, e.g. "mobilenet_v2(width_mult=0.35)", which `parse_backbone` reads."""
        inside = ", ".join(f"{key}={value!r}" for key, value in self.kwargs)
        return f"{self.name}({inside})" if inside else self.name

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments as a new mapping."""
        return dict(self.kwargs)


@cache
def backbone_names() -> tuple[str, ...]:
    """Returns all known names except timm's, sorted: the encoders and torchvision's classifiers.

    The names are read from torchvision's source files, because its import takes seconds.
    """
    return tuple(sorted({*ENCODER_NAMES, *_torchvision_names()}))


def _torchvision_names() -> set[str]:
    spec = importlib.util.find_spec("torchvision")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [path for folder in folders for path in (Path(folder) / "models").glob("*.py")]
    return {name for path in files for name in _BUILDER_PATTERN.findall(path.read_text(encoding="utf-8"))}


def parse_backbone(text: str) -> BackboneSpec:
    """Parses "NAME" or "NAME(key=value, ...)"; values are Python literals.

    The names of timm's models, and whether an architecture accepts the arguments, are checked when the model is built.

    Raises:
        UsageError: The syntax is wrong, the name is unknown, timm is not installed, or an argument is repeated or
            reserved.
    """
    match = _CALL_PATTERN.fullmatch(text)
    if match is None:
        raise UsageError(f"backbone {text!r}: {_SYNTAX_HELP}")
    name = match.group(1)
    _check_name(name)
    return BackboneSpec(name, tuple(sorted(_parse_keywords(text, match.group(2) or "").items())))


def _check_name(name: str) -> None:
    if name.startswith(TIMM_PREFIX):
        if importlib.util.find_spec("timm") is None:
            raise MissingTimmError(f"backbone {name!r} needs timm: pip install 'nbt-transfer[timm]'")
    elif name not in backbone_names():
        raise UsageError(f"unknown backbone {name!r}; {nearest(name, backbone_names())}")


def _parse_keywords(text: str, inside: str) -> dict[str, Any]:
    """Returns the keyword arguments between the parentheses of `text`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # e.g. about invalid escapes in strings
            call = ast.parse(f"f({inside})", mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        call = None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise UsageError(f"backbone {text!r}: {_SYNTAX_HELP}")
    keywords: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise UsageError(f"backbone {text!r}: {_SYNTAX_HELP}")
        if keyword.arg in keywords:
            raise UsageError(f"backbone {text!r}: {keyword.arg} is given twice")
        if keyword.arg in _RESERVED_ARGUMENTS:
            raise UsageError(
                f"backbone {text!r}: {keyword.arg} cannot be given here; {_RESERVED_ARGUMENTS[keyword.arg]}"
            )
        keywords[keyword.arg] = _parse_literal(text, keyword)
    return keywords


def _parse_literal(text: str, keyword: ast.keyword) -> Any:
    try:
        return _to_hashable(ast.literal_eval(keyword.value))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise UsageError(
            f"backbone {text!r}: {keyword.arg} is not a number, a text in quotes, True, False, None, or a list of these"
        ) from error


def _to_hashable(value: Any) -> Any:
    """Returns a value with lists as tuples; raises ValueError for other types and for numbers that are too large."""
    if isinstance(value, (list, tuple)):
        return tuple(_to_hashable(item) for item in value)
    if isinstance(value, (int, float)) and not abs(value) < _MAX_NUMBER:  # also catches nan
        raise ValueError("no architecture takes such a number")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError("not a plain value")
