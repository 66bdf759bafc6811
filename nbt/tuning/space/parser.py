"""Parser of search spaces in YAML.

Every error is one line that names the file, the dimension and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbt.errors import UsageError, errors_in, nearest
from nbt.settings import SETTINGS
from nbt.tuning.space.dimension import Dimension, ParamValue
from nbt.yaml_loader import parse_yaml_mapping

DIMENSION_KINDS = ("float", "int", "categorical")
_SPACE_KEYS = ("name", "description", "dimensions", "fixed", "same_as")
_RANGE_KEYS = ("kind", "low", "high", "log", "neutral", "knots", "ends", "share_of", "description")
_CHOICE_KEYS = ("kind", "choices", "neutral", "description")


def parse_space_fields(text: str, *, source: str, default_name: str = "space") -> dict[str, Any]:
    """Parses a YAML text into the fields of a `Space`.

    Args:
        text: YAML with the keys `name`, `description`, `dimensions` (setting -> kind, low, high, log, choices, neutral,
            knots, ends, share_of, description), `fixed` (setting -> value) and `same_as` (setting -> dimension that
            it follows).
        source: Name of the text in errors and in the study: a shipped name or an absolute path.
        default_name: Name of the space if the text has none.

    Raises:
        UsageError: The text is not valid YAML or does not describe a search space.
    """
    values = parse_yaml_mapping(text, source=source)
    with errors_in(source):
        return _parse_fields(values, source, default_name)


def _parse_fields(values: Mapping[str, Any], source: str, default_name: str) -> dict[str, Any]:
    _check_keys(values, _SPACE_KEYS)
    entries = _get_mapping(values, "dimensions")
    if not entries:
        raise UsageError("no dimensions: name at least one setting to vary under dimensions:")
    dimensions = tuple(_parse_dimension(name, entry) for name, entry in entries.items())
    _check_shares(dimensions)
    fixed = {name: _parse_fixed(name, value) for name, value in _get_mapping(values, "fixed").items()}
    same_as = {name: _parse_same_as(name, other, dimensions) for name, other in _get_mapping(values, "same_as").items()}
    for name in (*fixed, *same_as):
        if (name in entries) + (name in fixed) + (name in same_as) > 1:
            raise UsageError(f"{name} is given twice: keep it in one of dimensions:, fixed: and same_as:")
    return {
        "name": _get_text(values, "name", default_name) or default_name,
        "description": _get_text(values, "description", ""),
        "dimensions": dimensions,
        "fixed": fixed,
        "same_as": same_as,
        "source": source,
    }


def _parse_dimension(name: str, entry: Any) -> Dimension:
    _check_setting(name, "dimension")
    try:
        if not isinstance(entry, dict):
            raise UsageError(f"expected kind, range and neutral value, got {entry!r}")
        kind = entry.get("kind")
        if kind not in DIMENSION_KINDS:
            raise UsageError(f"kind {kind!r} is not one of {', '.join(DIMENSION_KINDS)}")
        if name == "epochs" and kind != "int":
            raise UsageError("the number of epochs is a range of whole numbers: use kind: int")
        return _parse_categorical(name, entry) if kind == "categorical" else _parse_range(name, entry)
    except UsageError as error:
        raise UsageError(f"dimension {name}: {error}") from error


def _parse_categorical(name: str, entry: Mapping[str, Any]) -> Dimension:
    _check_keys(entry, _CHOICE_KEYS)
    setting = SETTINGS[name]
    if setting.knots:
        raise UsageError(
            f"a list of numbers cannot be categorical: use kind: float with knots: [{', '.join(setting.knots)}]"
        )
    choices = entry.get("choices")
    if not isinstance(choices, list) or len(choices) < 2:
        raise UsageError("choices: give a list of two or more values (a single value goes under fixed:)")
    checked = tuple(setting.rule.check("choices", choice) for choice in choices)
    if len(set(checked)) < len(checked):
        raise UsageError(f"choices: a value of {choices!r} is given twice")
    neutral = setting.rule.check("neutral", _get_required(entry, "neutral"))
    if neutral not in checked:
        raise UsageError(f"neutral {neutral!r} is not among the choices: add it to choices, or use one of them")
    return Dimension(
        name=name,
        kind="categorical",
        choices=checked,
        neutral=neutral,
        description=_get_text(entry, "description", SETTINGS[name].text),
    )


def _parse_range(name: str, entry: Mapping[str, Any]) -> Dimension:
    _check_keys(entry, _RANGE_KEYS)
    rule, kind = SETTINGS[name].rule, entry["kind"]
    if rule.choices or rule.text or rule.flag:
        choices = "false, true" if rule.flag else ", ".join(rule.choices) or "..."
        raise UsageError(f"the setting is not a number: use kind: categorical with choices: [{choices}]")
    if rule.integer and kind == "float":
        raise UsageError("the setting is a whole number: use kind: int")
    low, high, neutral = (_parse_bound(name, key, entry, kind) for key in ("low", "high", "neutral"))
    if low >= high:
        problem = "empty" if low == high else "inverted"
        raise UsageError(
            f"{problem} range {low:g} ... {high:g}: low must be below high (a single value goes under fixed:)"
        )
    if not low <= neutral <= high:
        raise UsageError(f"neutral {neutral:g} is outside {low:g} ... {high:g}: widen the range, or move neutral")
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise UsageError(f"log: expected true or false, got {log!r}")
    if log and low <= 0:
        raise UsageError(f"low {low:g} has no logarithm: raise low above 0, or leave log out")
    return Dimension(
        name=name,
        kind=kind,
        low=low,
        high=high,
        log=log,
        neutral=neutral,
        knots=_parse_knots(name, entry),
        ends=_parse_ends(entry, kind, log),
        share_of=_get_text(entry, "share_of", ""),
        description=_get_text(entry, "description", SETTINGS[name].text),
    )


def _parse_bound(name: str, key: str, entry: Mapping[str, Any], kind: str) -> Any:
    """Returns a checked number of an entry, converted to the type of the dimension's kind.

    The number must be valid for the setting, or for each element of a vector setting.
    """
    value = _get_required(entry, key)
    rule = SETTINGS[name].rule
    checked = rule.check(key, [value] * rule.length)[0] if rule.length else rule.check(key, value)
    if kind == "int" and checked != int(checked):
        raise UsageError(f"{key}: expected a whole number for kind: int, got {value!r}")
    return int(checked) if kind == "int" else float(checked)


def _parse_knots(name: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    knots, expected = entry.get("knots"), SETTINGS[name].knots
    if knots == (list(expected) or None):
        return expected
    if expected:
        raise UsageError(f"knots: expected [{', '.join(expected)}], got {knots!r}")
    raise UsageError("knots: the setting is a single number; leave knots out")


def _check_shares(dimensions: tuple[Dimension, ...]) -> None:
    """Raises UsageError if a dimension is a share of something else than a share, or of another such dimension."""
    shares = [d.name for d in dimensions if _is_share(d) and not d.share_of]
    for dimension in dimensions:
        if dimension.share_of and dimension.share_of not in shares:
            raise UsageError(
                f"dimension {dimension.name}: share_of: {dimension.share_of!r} is not a dimension of 0 ... 1; "
                f"{nearest(dimension.share_of, shares)}"
            )
        if dimension.share_of and not _is_share(dimension):
            raise UsageError(f"dimension {dimension.name}: share_of: its range must be within 0 ... 1, without log")


def _is_share(dimension: Dimension) -> bool:
    low, high = dimension.low, dimension.high
    is_number = dimension.kind == "float" and not dimension.log and not dimension.knots
    return is_number and low is not None and high is not None and 0.0 <= low <= high <= 1.0


def _parse_ends(entry: Mapping[str, Any], kind: str, log: bool) -> tuple[float, float]:
    ends = entry.get("ends")
    if ends is None:
        return (0.0, 0.0)
    if kind != "float" or log:
        raise UsageError("ends: only a float range without log can overshoot; leave ends out")
    is_pair = isinstance(ends, list) and len(ends) == 2 and all(type(end) in (int, float) for end in ends)
    if not is_pair or not all(0 <= end <= 1 for end in ends):
        raise UsageError(f"ends: expected two shares of the range in 0 ... 1, e.g. [0.1, 0.1], got {ends!r}")
    return (float(ends[0]), float(ends[1]))


def _parse_fixed(name: str, value: Any) -> ParamValue | tuple[float, ...]:
    _check_setting(name, "setting under fixed:")
    checked: ParamValue | tuple[float, ...] = SETTINGS[name].rule.check(f"fixed: {name}", value)
    return checked


def _parse_same_as(name: str, other: Any, dimensions: tuple[Dimension, ...]) -> str:
    """Returns the name of the dimension that a setting follows.

    Args:
        name: Name of the setting, which must accept every value of the dimension.
        other: Name of the dimension as given.
        dimensions: All dimensions of the space.
    """
    _check_setting(name, "setting under same_as:")
    followed = next((d for d in dimensions if d.name == other), None)
    if followed is None:
        raise UsageError(f"same_as: {name} follows {other!r}; {nearest(str(other), [d.name for d in dimensions])}")
    values = followed.choices or (followed.low, followed.high)
    for value in values:
        elements = [value] * len(followed.knots) if followed.knots else value
        SETTINGS[name].rule.check(f"same_as: {name} follows {other}, but {name}", elements)
    return followed.name


def _check_setting(name: str, role: str) -> None:
    """Raises UsageError if a name is not a setting that a space can contain; `role` names its use in messages."""
    if name == "epochs" and role != "dimension":
        raise UsageError(f"epochs cannot be a {role}: give --epochs, or vary them under dimensions:")
    if name not in SETTINGS:
        raise UsageError(f"unknown {role} {name!r}; {nearest(name, SETTINGS)}")


def _check_keys(values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in values:
        if key not in known:
            raise UsageError(f"unknown key {key!r}; {nearest(str(key), known)}")


def _get_required(entry: Mapping[str, Any], key: str) -> Any:
    if entry.get(key) is None:
        meaning = " (the value that disables the technique)" if key == "neutral" else ""
        raise UsageError(f"{key} is missing: add {key}:{meaning}")
    return entry[key]


def _get_mapping(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    entries = values.get(key)
    if entries is None:
        return {}
    if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries):
        raise UsageError(f"{key}: expected a mapping of names to values, got {entries!r:.80}")
    return entries


def _get_text(values: Mapping[str, Any], key: str, default: str) -> str:
    text = values.get(key)
    if text is None:
        return default
    if not isinstance(text, str):
        raise UsageError(f"{key}: expected text, got {text!r:.80}")
    return " ".join(text.split())
