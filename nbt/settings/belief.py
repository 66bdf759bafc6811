"""Beliefs: what a user expects of the value of a setting in a good recipe."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbt.errors import UsageError, nearest
from nbt.yaml_loader import parse_yaml_mapping

DEFAULT_CERTAINTY = 0.5
_FORMS = "around: VALUE (and spread: WIDTH), from: LOW and to: HIGH or one of them, or is: VALUE"
_KEYS = ("dimension", "around", "spread", "from", "to", "is", "certainty")


class BeliefError(UsageError):
    """A wrong belief.

    Attributes:
        dimension: The dimension that the belief names.
    """

    def __init__(self, dimension: str, problem: str) -> None:
        super().__init__(f"belief about {dimension}: {problem}")
        self.dimension = dimension


@dataclass(frozen=True, kw_only=True)
class Belief:
    """A belief in a value, a range or choices of one dimension of a search space.

    Attributes:
        dimension: Name of the dimension.
        around: The value with the greatest density; None in the other forms.
        spread: Standard deviation around it, in decades on a logarithmic dimension; None: a quarter of the range.
        low: Lower end of a range; None if it has none.
        high: Upper end of a range; None if it has none.
        choices: Values of a categorical dimension; empty in the other forms.
        certainty: Expected weight of the belief before any trial, above 0 and at most 1. The rules of nbt have 0.15 to
            0.6.
    """

    dimension: str
    around: float | None = None
    spread: float | None = None
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    certainty: float = DEFAULT_CERTAINTY

    @classmethod
    def from_dict(cls, values: Any) -> Belief:
        """Reads a belief from one item of `beliefs:`.

        Raises:
            UsageError: A key is unknown or missing, or a value is of another type; the message names it.
        """
        if not isinstance(values, Mapping) or not isinstance(values.get("dimension"), str):
            raise UsageError(f"beliefs: expected a mapping with dimension: NAME and {_FORMS}, got {values!r:.80}")
        where = values["dimension"]
        for key in values:
            if key not in _KEYS:
                raise BeliefError(where, f"unknown key {key!r}; {nearest(str(key), _KEYS)}")
        forms = [form for form in (("around",), ("from", "to"), ("is",)) if any(key in values for key in form)]
        if len(forms) != 1 or ("spread" in values and "around" not in values):
            raise BeliefError(where, f"give one form: {_FORMS}")
        numbers = {key: _number(where, key, values[key]) for key in _KEYS if key in values and key in _NUMBERS}
        if numbers.get("spread", 1.0) <= 0 or not 0 < numbers.get("certainty", DEFAULT_CERTAINTY) <= 1:
            raise BeliefError(where, "spread must be above 0, and certainty above 0 and at most 1")
        if numbers.get("from", -math.inf) >= numbers.get("to", math.inf):
            raise BeliefError(where, "from must be below to")
        choices = values.get("is", [])
        return cls(
            dimension=values["dimension"],
            around=numbers.get("around"),
            spread=numbers.get("spread"),
            low=numbers.get("from"),
            high=numbers.get("to"),
            choices=tuple(choices) if isinstance(choices, list) else (choices,),
            certainty=numbers.get("certainty", DEFAULT_CERTAINTY),
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the belief as an item of `beliefs:`."""
        values: dict[str, Any] = {"dimension": self.dimension, "around": self.around, "spread": self.spread}
        values |= {"from": self.low, "to": self.high, "is": list(self.choices) or None, "certainty": self.certainty}
        return {key: value for key, value in values.items() if value is not None}


_NUMBERS = ("around", "spread", "from", "to", "certainty")


def _number(where: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BeliefError(where, f"{key}: expected a number, got {value!r}")
    return float(value)


def parse_beliefs(value: Any) -> tuple[Belief, ...]:
    """Reads beliefs from a list of mappings, or from YAML or JSON text of one; none for None.

    Raises:
        UsageError: The value has another form, or two beliefs are about one dimension.
    """
    items = parse_yaml_mapping(f"beliefs: {value}", source="beliefs")["beliefs"] if isinstance(value, str) else value
    if not isinstance(items, list | tuple | None):
        raise UsageError(f"beliefs: expected a list of mappings, got {value!r:.80}")
    beliefs = tuple(item if isinstance(item, Belief) else Belief.from_dict(item) for item in items or ())
    counts = Counter(belief.dimension for belief in beliefs)
    for dimension, count in counts.items():
        if count > 1:
            raise BeliefError(dimension, f"there are {count}; give one per dimension")
    return beliefs


def beliefs_text(value: Any) -> str:
    """Returns beliefs as one line of JSON; `parse_beliefs` reads it, and its errors are those of `parse_beliefs`."""
    return json.dumps([belief.to_dict() for belief in parse_beliefs(value)])
