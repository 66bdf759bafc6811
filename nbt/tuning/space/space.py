"""Space: what a search may vary, read from YAML; parameters of the sampler to settings and back.

Nothing here imports optuna or torch until `Space.distributions` is called.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.errors import UsageError, nearest
from nbt.paths import bundled_folder
from nbt.settings import TransferSettings, repair
from nbt.tuning.space.dimension import Dimension, ParamValue, _format_value
from nbt.tuning.space.parser import parse_space_fields

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True, kw_only=True)
class Space:
    """A flat search space: every dimension is in every trial, and its neutral value means "without this".

    Attributes:
        name: What the file calls it.
        description: What it is for.
        dimensions: What is varied, in the order of the file.
        fixed: Settings that are held at a value of their own; what is neither varied nor fixed has its default.
        same_as: Settings that follow a dimension, e.g. `body_lr` follows `head_lr`.
        source: The name of a shipped space, or the absolute path of a file.
    """

    name: str
    description: str
    dimensions: tuple[Dimension, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    same_as: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    @classmethod
    def load(cls, name_or_path: str | Path) -> Space:
        """Reads a shipped space by its name, or a file by its path.

        Raises:
            UsageError: There is no such space, or the file is wrong; the message names file, dimension and remedy.
        """
        name, path = str(name_or_path), Path(name_or_path)
        if name in space_names():
            shipped = bundled_folder("search_spaces") / f"{name}.yaml"
            return cls.parse(_read_file(shipped), source=name, default_name=name)
        if path.suffix in (".yaml", ".yml") or path.name != name:
            return cls.parse(_read_file(path), source=str(path.absolute()), default_name=path.stem)
        raise UsageError(
            f"unknown search space {name!r}; {nearest(name, space_names())} "
            "(a space of your own is given by its path, e.g. ./my_space.yaml)"
        )

    @classmethod
    def parse(cls, text: str, *, source: str, default_name: str = "space") -> Space:
        """Returns the space that a YAML text describes.

        Args:
            text: YAML, see `nbt.tuning.space.parser`.
            source: Name of the text in errors and in the study: a shipped name or an absolute path.
            default_name: Name of a space whose text gives none.

        Raises:
            UsageError: The text is wrong; the message names source, dimension and remedy.
        """
        return cls(**parse_space_fields(text, source=source, default_name=default_name))

    @property
    def hash(self) -> str:
        """Fingerprint of what is searched; names and descriptions do not enter it."""
        dimensions = {d.name: [d.kind, d.low, d.high, d.log, d.choices, d.neutral, d.ends] for d in self.dimensions}
        text = json.dumps([dimensions, dict(self.fixed), dict(self.same_as)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the sampler's parameters, in order."""
        return tuple(name for dimension in self.dimensions for name in dimension.parameters)

    @cached_property
    def _param_name_set(self) -> frozenset[str]:
        return frozenset(self.parameters)

    def default(self, epochs: int) -> TransferSettings:
        """Returns the settings at which every dimension is neutral."""
        neutral = {name: d.neutral for d in self.dimensions for name in d.parameters}
        return self.settings(neutral, epochs)

    def settings(self, params: Mapping[str, Any], epochs: int) -> TransferSettings:
        """Returns the repaired settings that the sampler's parameters stand for.

        Args:
            params: A value for each of `parameters`.
            epochs: Length of the trial.

        Raises:
            UsageError: A parameter is missing, unknown or out of range.
        """
        if params.keys() != self._param_name_set:
            wrong = sorted(set(params) ^ set(self.parameters))
            raise UsageError(f"space {self.name}: parameters missing or unknown: {', '.join(wrong)}")
        values: dict[str, Any] = {**self.fixed, "epochs": epochs}
        for dimension in self.dimensions:
            if dimension.knots:
                values[dimension.name] = tuple([dimension.value(params[name]) for name in dimension.parameters])
            else:
                values[dimension.name] = dimension.value(params[dimension.name])
        values |= {name: values[source] for name, source in self.same_as.items()}
        return repair(TransferSettings(**values))

    def params(self, settings: TransferSettings) -> dict[str, ParamValue]:
        """Returns parameters of the sampler that stand for the settings; the reverse of `settings`.

        Raises:
            UsageError: The space cannot express them: a value is out of range, or a setting that is not searched
                differs.
        """
        settings = repair(settings)
        params: dict[str, ParamValue] = {}
        for dimension in self.dimensions:
            value = getattr(settings, dimension.name)
            drawn = value if dimension.knots else (value,)
            params |= {n: dimension.parameter(v) for n, v in zip(dimension.parameters, drawn, strict=True)}
        reached = self.settings(params, settings.epochs)
        if reached != settings:
            wanted = settings.to_dict()
            differing = [name for name, value in reached.to_dict().items() if value != wanted[name]]
            raise UsageError(f"space {self.name} does not vary {', '.join(differing)} as these settings need")
        return params

    def can_express(self, settings: TransferSettings) -> bool:
        """Returns whether `params` has an answer for the settings."""
        try:
            self.params(settings)
        except UsageError:
            return False
        return True

    def without(self, names: Iterable[str]) -> Space:
        """Returns the space in which some dimensions are held at their neutral values."""
        wanted = set(names)
        held = {d.name: d.neutral if not d.knots else (d.neutral,) * len(d.knots) for d in self.dimensions}
        held = {name: neutral for name, neutral in held.items() if name in wanted}
        kept = tuple(d for d in self.dimensions if d.name not in held)
        return dataclasses.replace(self, dimensions=kept, fixed={**self.fixed, **held}) if held else self

    def with_fixed(self, **values: Any) -> Space:
        """Returns the space with some settings, none of them a dimension, held at given values."""
        return dataclasses.replace(self, fixed={**self.fixed, **values})

    def distributions(self) -> dict[str, BaseDistribution]:
        """Returns optuna's distribution of every parameter."""
        return {name: dimension.distribution() for dimension in self.dimensions for name in dimension.parameters}

    def to_table(self) -> list[dict[str, str]]:
        """Returns one row a dimension (and one for each setting that is fixed or follows another) for people.

        The columns are dimension, kind, range, neutral, description.
        """
        rows = [
            _table_row(
                d.name,
                d.kind,
                d.describe() + (f" at {', '.join(d.knots)}" if d.knots else ""),
                _format_value(d.neutral),
                d.description,
            )
            for d in self.dimensions
        ]
        rows += [_table_row(name, "fixed", _format_value(value), "", "") for name, value in self.fixed.items()]
        return rows + [_table_row(name, "same as", source, "", "") for name, source in self.same_as.items()]


def space_names() -> tuple[str, ...]:
    """Returns the names of the spaces that come with nbt."""
    return tuple(sorted(path.stem for path in bundled_folder("search_spaces").glob("*.yaml")))


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UsageError(f"{path}: cannot read the search space ({reason})") from error


def _table_row(*cells: str) -> dict[str, str]:
    return dict(zip(("dimension", "kind", "range", "neutral", "description"), cells, strict=True))
