"""Search spaces: loading from YAML, and conversion between sampler parameters and settings.

The module imports neither Optuna nor PyTorch; `Space.distributions` imports Optuna.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.errors import UsageError, nearest
from nbt.paths import bundled_folder
from nbt.settings import SETTINGS, TransferSettings, repair
from nbt.settings.teacher_names import parse_teacher_names
from nbt.tuning.space.dimension import Dimension, ParamValue, format_value
from nbt.tuning.space.parser import parse_space_fields

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

EPOCHS, BACKBONE, TEACHER = "epochs", "backbone", "teacher"


@dataclass(frozen=True, kw_only=True)
class Space:
    """A flat search space: every trial has every dimension, and a dimension's neutral value disables its technique.

    Attributes:
        name: Name of the space.
        description: Purpose of the space.
        dimensions: Settings that the search varies, in the order of the file.
        fixed: Settings with a constant value; settings that are neither varied nor fixed keep their defaults.
        same_as: Settings that follow a dimension, e.g. `body_lr` follows `head_lr`.
        source: Name of a shipped space, or absolute path of a file.
    """

    name: str
    description: str
    dimensions: tuple[Dimension, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    same_as: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    @classmethod
    def load(cls, name_or_path: str | Path) -> Space:
        """Loads a shipped space by name, or a file by path.

        Raises:
            UsageError: There is no such space, or the file is invalid; the message names file, dimension and remedy.
        """
        name, path = str(name_or_path), Path(name_or_path)
        if name in space_names():
            shipped = bundled_folder("search_spaces") / f"{name}.yaml"
            return cls.parse(_read_file(shipped), source=name, default_name=name)
        if path.suffix in (".yaml", ".yml") or path.name != name:
            return cls.parse(_read_file(path), source=str(path.absolute()), default_name=path.stem)
        raise UsageError(
            f"unknown search space {name!r}; {nearest(name, space_names())} "
            "(for another space, give the path of its file, e.g. ./my_space.yaml)"
        )

    @classmethod
    def parse(cls, text: str, *, source: str, default_name: str = "space") -> Space:
        """Parses a YAML text.

        Args:
            text: YAML; see `nbt.tuning.space.parser.parse_space_fields`.
            source: Name of the text in errors and in the study: a shipped name or an absolute path.
            default_name: Name of the space if the text has none.

        Raises:
            UsageError: The text is invalid; the message names source, dimension and remedy.
        """
        return cls(**parse_space_fields(text, source=source, default_name=default_name))

    @property
    def hash(self) -> str:
        """Fingerprint of the dimensions and of `fixed` and `same_as`; it does not depend on names and descriptions."""
        dimensions = {
            d.name: [d.kind, d.low, d.high, d.log, d.choices, d.neutral, d.ends, *([d.share_of] if d.share_of else [])]
            for d in self.dimensions
        }
        text = json.dumps([dimensions, dict(self.fixed), dict(self.same_as)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the sampler's parameters, in the order of the dimensions."""
        return tuple(name for dimension in self.dimensions for name in dimension.parameters)

    @cached_property
    def _param_name_set(self) -> frozenset[str]:
        return frozenset(self.parameters)

    @cached_property
    def _shares(self) -> tuple[Dimension, ...]:
        return tuple(dimension for dimension in self.dimensions if dimension.share_of)

    @cached_property
    def _checked(self) -> tuple[str, ...]:
        """Names of the settings that `settings` checks at every call; the whole ranges of the others are valid."""
        ranges = {name: (value,) for name, value in self.fixed.items()} | {d.name: d.extremes for d in self.dimensions}
        changed = {EPOCHS, *(dimension.name for dimension in self._shares), *self.same_as}
        valid = {name for name, ends in ranges.items() if TransferSettings.are_valid(name, ends)} - changed
        return tuple(name for name in dict.fromkeys([EPOCHS, *ranges, *self.same_as]) if name not in valid)

    @cached_property
    def epochs(self) -> Dimension | None:
        """The dimension `epochs`, if trials differ in length; its neutral value is the length of a baseline trial."""
        return next((dimension for dimension in self.dimensions if dimension.name == EPOCHS), None)

    def with_fixed_epochs(self) -> Space:
        """Returns the space without the dimension `epochs`: all trials have the length that `settings` receives."""
        kept = tuple(dimension for dimension in self.dimensions if dimension.name != EPOCHS)
        return self if len(kept) == len(self.dimensions) else dataclasses.replace(self, dimensions=kept)

    def with_epochs(self, length: int) -> Space:
        """Returns the space with a dimension `epochs` from half to twice a length, unless it has one.

        Args:
            length: Epochs of a baseline trial, the neutral value.
        """
        if self.epochs is not None:
            return self
        dimension = Dimension(
            name=EPOCHS,
            kind="int",
            low=max(1, length // 2),
            high=2 * length,
            log=True,
            neutral=length,
            description=SETTINGS[EPOCHS].text,
        )
        return dataclasses.replace(self, dimensions=(*self.dimensions, dimension))

    @property
    def has_backbones(self) -> bool:
        """Whether the search chooses among several backbones."""
        return any(dimension.name == BACKBONE for dimension in self.dimensions)

    def with_backbones(self, names: Sequence[str]) -> Space:
        """Returns the space with a dimension that chooses the backbone.

        Args:
            names: Names of the backbones other than that of the task, which is the neutral value ""; may be empty.
        """
        if not names:
            return self
        dimension = Dimension(
            name=BACKBONE,
            kind="categorical",
            choices=("", *names),
            neutral="",
            description=SETTINGS[BACKBONE].text,
        )
        return dataclasses.replace(self, dimensions=(*self.dimensions, dimension))

    def with_teachers(self, names: Collection[str]) -> Space:
        """Returns the space with the setting `teacher` fixed at the only name, or varied over several.

        Args:
            names: Names of the teachers, in any order.
        """
        if len(names) == 1:
            return self.with_fixed(**{TEACHER: next(iter(names))})
        choices = tuple(sorted(names))
        dimension = Dimension(
            name=TEACHER,
            kind="categorical",
            choices=choices,
            neutral=choices[0],
            description=SETTINGS[TEACHER].text,
        )
        return dataclasses.replace(self, dimensions=(*self.dimensions, dimension))

    def default(self, epochs: int) -> TransferSettings:
        """Returns the settings with every dimension at its neutral value."""
        neutral = {name: d.neutral for d in self.dimensions for name in d.parameters}
        return self.settings(neutral, epochs)

    def settings(self, params: Mapping[str, Any], epochs: int) -> TransferSettings:
        """Converts sampler parameters to repaired settings.

        Args:
            params: A value for each of `parameters`.
            epochs: Epochs of the trial, unless the space varies them.

        Raises:
            UsageError: A parameter is missing, unknown or out of range.
        """
        if params.keys() != self._param_name_set:
            wrong = sorted(set(params) ^ set(self.parameters))
            raise UsageError(f"space {self.name}: missing or unknown parameters: {', '.join(wrong)}")
        values: dict[str, Any] = {**self.fixed, EPOCHS: epochs}
        for dimension in self.dimensions:
            if dimension.knots:
                values[dimension.name] = tuple([dimension.value(params[name]) for name in dimension.parameters])
            else:
                values[dimension.name] = dimension.value(params[dimension.name])
        for dimension in self._shares:
            values[dimension.name] *= values[dimension.share_of]
        values |= {name: values[followed] for name, followed in self.same_as.items()}
        checked = {name: values.pop(name) for name in self._checked}
        return repair(TransferSettings().replace_valid(values).replace(**checked))

    def params(self, settings: TransferSettings) -> dict[str, ParamValue]:
        """Converts settings to sampler parameters; the inverse of `settings`.

        Raises:
            UsageError: The space does not contain the settings: a value is out of range, or a setting that the space
                does not vary differs.
        """
        settings = repair(settings)
        params: dict[str, ParamValue] = {}
        for dimension in self.dimensions:
            value = settings.value(dimension.name)
            if dimension.name == TEACHER and not value:  # reset, because nothing is injected
                value = dimension.neutral
            if dimension.share_of:
                whole = settings.value(dimension.share_of)
                value = min(value / whole, 1.0) if whole else dimension.neutral
            elements = value if dimension.knots else (value,)
            params |= {
                name: dimension.parameter(element) for name, element in zip(dimension.parameters, elements, strict=True)
            }
        restored = self.settings(params, settings.epochs)
        for dimension in self._shares:  # a product of a quotient may differ in its last digit
            if math.isclose(restored.value(dimension.name), settings.value(dimension.name)):
                restored = restored.replace(**{dimension.name: settings.value(dimension.name)})
        if restored != settings:
            differing = [name for name in SETTINGS if restored.value(name) != settings.value(name)]
            raise UsageError(f"space {self.name} does not vary {', '.join(differing)} as these settings need")
        return params

    def can_express(self, settings: TransferSettings) -> bool:
        """Returns whether the space contains the settings."""
        try:
            self.params(settings)
        except UsageError:
            return False
        return True

    def without(self, names: Iterable[str]) -> Space:
        """Returns the space with some dimensions fixed at their neutral values; unknown names are ignored."""
        removed = set(names)
        neutral = {d.name: d.neutral if not d.knots else (d.neutral,) * len(d.knots) for d in self.dimensions}
        neutral = {name: value for name, value in neutral.items() if name in removed}
        kept = tuple(d for d in self.dimensions if d.name not in neutral)
        return dataclasses.replace(self, dimensions=kept, fixed={**self.fixed, **neutral}) if neutral else self

    def with_fixed(self, **values: Any) -> Space:
        """Returns the space with additional settings, none of them a dimension, fixed at the given values."""
        return dataclasses.replace(self, fixed={**self.fixed, **values})

    def distributions(self) -> dict[str, BaseDistribution]:
        """Returns the Optuna distribution of every parameter, by name."""
        return {name: dimension.distribution() for dimension in self.dimensions for name in dimension.parameters}

    def to_table(self) -> list[dict[str, str]]:
        """Returns a table for display: one row per dimension, per fixed setting and per setting under `same_as`.

        The columns are dimension, kind, range, neutral and description.
        """
        rows = [
            _table_row(
                d.name,
                d.kind,
                d.describe() + (f" at {', '.join(d.knots)}" if d.knots else ""),
                format_value(d.neutral),
                d.description,
            )
            for d in self.dimensions
        ]
        rows += [_table_row(name, "fixed", format_value(value), "", "") for name, value in self.fixed.items()]
        return rows + [_table_row(name, "same as", followed, "", "") for name, followed in self.same_as.items()]


def stored_space(source: str, space_hash: str, teacher: str | None = None) -> Space | None:
    """Returns the space of a stored study, with its teachers; None if it cannot be read or has changed since.

    Args:
        source: Name of a shipped space, or path of its file.
        space_hash: `Space.hash` at the time of the search.
        teacher: The option `teacher` of the search.
    """
    try:
        space = Space.load(source)
    except UsageError:
        return None
    if space.hash != space_hash:
        return None
    return space if teacher is None else space.with_teachers(parse_teacher_names(teacher))


def space_names() -> tuple[str, ...]:
    """Returns the names of the shipped spaces."""
    return tuple(sorted(path.stem for path in bundled_folder("search_spaces").glob("*.yaml")))


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UsageError(f"{path}: cannot read the search space ({reason})") from error


def _table_row(*cells: str) -> dict[str, str]:
    return dict(zip(("dimension", "kind", "range", "neutral", "description"), cells, strict=True))
