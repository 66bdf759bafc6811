"""Teachers: pretrained backbones whose weights are injected into other backbones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.errors import UsageError
from nbt.models.backbone_spec import BackboneSpec, parse_backbone
from nbt.paths import absolute_path
from nbt.settings.teacher_names import parse_teacher_names

if TYPE_CHECKING:
    import torch

_SYNTAX_HELP = "write BACKBONE (its library weights), or BACKBONE=FILE (a state dict)"


@dataclass(frozen=True, eq=False)
class Teacher:
    """A pretrained backbone without its head.

    Attributes:
        name: As `canonical_teacher_name` returns it.
        spec: The architecture.
        w0: State of the units, keys "units.I....".
        stale_statistics: As in `nbt.models.weights.PretrainedWeights`.
    """

    name: str
    spec: BackboneSpec
    w0: Mapping[str, torch.Tensor]
    stale_statistics: tuple[str, ...] = ()


def parse_teacher(text: str) -> tuple[BackboneSpec, str]:
    """Parses "BACKBONE" or "BACKBONE=FILE" without importing PyTorch.

    Returns:
        The architecture, and "default" or the absolute path of an existing file.

    Raises:
        UsageError: The syntax is wrong, the backbone is unknown, or the file does not exist.
    """
    spec, weights = _parse(text)
    if weights != "default" and not Path(weights).is_file():
        raise UsageError(f"teacher {text!r}: no file {Path(weights).name}; {_SYNTAX_HELP}")
    return spec, weights


def parse_teachers(value: Any) -> tuple[str, ...]:
    """Returns the names of teachers in their canonical form, without importing PyTorch.

    Args:
        value: As in `nbt.settings.teacher_names.parse_teacher_names`.

    Raises:
        UsageError: The value is not a list of names, `parse_teacher` fails for one of them, or two are the same.
    """
    names: dict[str, str] = {}
    for text in parse_teacher_names(value):
        parse_teacher(text)
        name = canonical_teacher_name(text)
        if name in names:
            same = "" if names[name] == text else f", also as {names[name]}"
            raise UsageError(f"--teacher {text} is given twice{same}")
        names[name] = text
    return tuple(names)


def canonical_teacher_name(text: str) -> str:
    """Returns "BACKBONE" or "BACKBONE=FILE" with a canonical specification and the absolute path of the file.

    Raises:
        UsageError: The syntax is wrong, or the backbone is unknown.
    """
    spec, weights = _parse(text)
    return spec.text if weights == "default" else f"{spec.text}={weights}"


def short_teacher_names(names: Sequence[str]) -> dict[str, str]:
    """Returns the shortest name of each teacher that no other one has, for tables.

    It is the architecture, "ARCHITECTURE=FILE" without the folder of the file, or the whole name.

    Args:
        names: Names of the teachers of a search, as `canonical_teacher_name` returns them.
    """
    short = {name: (_split_at_equals_sign(name)[0], teacher_without_folder(name)) for name in names}
    counts = Counter(text for texts in short.values() for text in set(texts))
    return {name: next((text for text in texts if counts[text] == 1), name) for name, texts in short.items()}


def teacher_without_folder(name: str) -> str:
    """Returns "BACKBONE" or "BACKBONE=FILE" without the folder of the file, for texts."""
    text, sign, file = _split_at_equals_sign(name)
    return f"{text}{sign}{Path(file).name}"


def load_teacher(text: str) -> Teacher:
    """Loads a teacher and checks its weights against its architecture, key by key.

    Args:
        text: "BACKBONE" or "BACKBONE=FILE".

    Raises:
        UsageError: `parse_teacher` fails, the file does not fit (the message names the keys), or the library has no
            weights for these arguments.
        NbtError: The library's weights cannot be downloaded.
    """
    spec, weights = parse_teacher(text)
    from nbt.models.backbone import default_image_size
    from nbt.models.weights import load_pretrained_weights

    try:
        pretrained = load_pretrained_weights(spec, weights, image_size=default_image_size(spec))
    except UsageError as error:
        if weights != "default":
            raise
        reason = str(error).split(";")[0].removeprefix("backbone ")  # its advice is for --weights
        raise UsageError(f"--teacher {text}: {reason}; give --teacher '{spec.text}=FILE'") from error
    return Teacher(canonical_teacher_name(text), spec, pretrained.w0, pretrained.stale_statistics)


def _parse(text: str) -> tuple[BackboneSpec, str]:
    """Returns the architecture, and "default" or the absolute path of a file, which may be missing."""
    name, sign, file = _split_at_equals_sign(text)
    if not name.strip() or (sign and not file.strip()):
        raise UsageError(f"teacher {text!r}: {_SYNTAX_HELP}")
    return parse_backbone(name), str(absolute_path(file.strip())) if sign else "default"


def _split_at_equals_sign(text: str) -> tuple[str, str, str]:
    """Splits a text at the first "=" outside parentheses into name, "=" and file; the last two are "" without one."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "=" and depth == 0:
            return text[:index], "=", text[index + 1 :]
    return text, "", ""
