"""Reads YAML safely, with `1e-4` as a number and without repeated keys, and writes it for this reader."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

import yaml

from nbt.errors import UsageError, one_line_message

# PyYAML reads YAML 1.1, in which "1e-4" is a string; in YAML 1.2 it is a number.
_FLOAT_PATTERN = re.compile(
    r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
)


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            problem = None
            if not isinstance(key, Hashable):
                problem = "a list or a mapping cannot be a key"
            elif key in seen:
                problem = f"{key!r} is given twice"
            if problem is not None:
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """A safe dumper that quotes texts that `_StrictLoader` would read as numbers, such as "08"."""


# In YAML 1.1, "1:30" is 90: a time of the clock would become a number.
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, re.compile(rf"(?![^:]*:)(?:{pattern.pattern})", pattern.flags)) for tag, pattern in resolvers]
    if first in list("-+0123456789.")
    else resolvers
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

for _class in (_StrictLoader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT_PATTERN, list("-+0123456789."))


def dump_yaml_mapping(values: Mapping[str, Any]) -> str:
    """Returns YAML text that `parse_yaml_mapping` reads back to the same values, in the same order."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False)


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        # The mark names the text by a name of the library; only its line is of use.
        where = source if error.problem_mark is None else f"{source}, line {error.problem_mark.line + 1}"
        problem = " ".join(str(error.problem or error.context).split())[:200]
        raise UsageError(f"{where}: not valid YAML ({problem})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{source}: not valid YAML ({getattr(error, 'reason', one_line_message(error, 200))})"
        ) from error


def parse_yaml_mapping(text: str, *, source: str) -> dict[str, Any]:
    """Parses YAML text that holds a mapping.

    Args:
        text: The YAML text.
        source: Name of the text in messages, usually its path.

    Raises:
        UsageError: The text is not valid YAML, a key is repeated, or the text is not a mapping with strings as keys.
    """
    values = _parse(text, source)
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"{source}: {_is_empty(values)}expected a mapping of names to values")
    return values


def _is_empty(values: Any) -> str:
    return "is empty; " if values is None else ""


def key_lines(text: str) -> dict[str, int]:
    """Returns the line, from 1, of each key of the mapping that `text` holds; `text` is valid YAML."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    return {key.value: key.start_mark.line + 1 for key, _ in node.value}


def line_of(text: str, key: str, value: str) -> int | None:
    """Returns the line, from 1, of the last entry `key: value` in any mapping of `text`; None without one."""
    pending, found = [yaml.compose(text, Loader=yaml.SafeLoader)], []
    while pending:
        node = pending.pop()
        if isinstance(node, yaml.SequenceNode):
            pending += node.value
        elif isinstance(node, yaml.MappingNode):
            pending += [item for _, item in node.value]
            found += [name.start_mark.line + 1 for name, item in node.value if (name.value, item.value) == (key, value)]
    return max(found, default=None)


def parse_yaml_list(text: str, *, source: str, items: str = "items") -> list[tuple[dict[str, str], Any]]:
    """Parses YAML text that holds a list.

    Args:
        text: The YAML text.
        source: Name of the text in messages, usually its path.
        items: What the list holds, for messages.

    Returns:
        Each item with its places for messages, such as "list.yaml, line 3": that of each key by its name, and that of
        the item by "".

    Raises:
        UsageError: The text is not valid YAML, a key is repeated, or the text is not a list.
    """
    values = _parse(text, source)
    if not isinstance(values, list):
        raise UsageError(f"{source}: {_is_empty(values)}expected a list of {items}")
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.SequenceNode)
    places = []
    for item in node.value:
        keys = item.value if isinstance(item, yaml.MappingNode) else []
        nodes = {"": item, **{key.value: key for key, _ in keys}}
        places.append({name: f"{source}, line {found.start_mark.line + 1}" for name, found in nodes.items()})
    return list(zip(places, values, strict=True))
