"""YAML: what is written is read back with the same types."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.errors import UsageError
from nbt.search_config import SearchConfig
from nbt.yaml_loader import dump_yaml_mapping, line_of, parse_yaml_list, parse_yaml_mapping

AMBIGUOUS = [
    *("08", "8", "1e-4", "+1", "-.5", "1.", "1_000", "0x1F", "0b1", "017", "1:30", "2026-01-01", "2026-01-01 10:00:00"),
    *("true", "no", "On", "y", "null", "~", "", ".inf", ".nan", "-.INF", "<<", "=", "1e5", "00", "0.0", "é: a", "- a"),
]

values = st.one_of(
    st.text(), st.sampled_from(AMBIGUOUS), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False)
)


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_a_text_that_looks_like_another_type_stays_a_text(text: str) -> None:
    read = parse_yaml_mapping(dump_yaml_mapping({"a": text}), source="x")
    assert read == {"a": text} and type(read["a"]) is str


@given(st.dictionaries(st.one_of(st.text(min_size=1), st.sampled_from(AMBIGUOUS)), values))
def test_mappings_are_read_back(mapping: dict[str, Any]) -> None:
    read = parse_yaml_mapping(dump_yaml_mapping(mapping), source="x")
    assert read == mapping and list(read) == list(mapping)
    assert [type(value) for value in read.values()] == [type(value) for value in mapping.values()]


def test_numbers_stay_numbers() -> None:
    numbers = {"a": 1e-4, "b": 1e300, "c": -3, "d": math.inf, "e": 0.1}
    assert parse_yaml_mapping(dump_yaml_mapping(numbers), source="x") == numbers


@pytest.mark.parametrize("dataset", ["08", "1e-4", "no", "2026-01-01"])
def test_a_dataset_with_such_a_name_survives_a_configuration_file(dataset: str) -> None:
    config = SearchConfig(dataset=dataset, budget=3)
    assert SearchConfig.from_yaml(config.to_yaml()) == config


def test_a_number_as_the_name_of_a_dataset_is_refused_with_the_remedy() -> None:
    with pytest.raises(UsageError, match=r"line 1: dataset: expected text, got 8\.0; .* need quotes"):
        SearchConfig.from_yaml("dataset: 08\n", source="x")


def test_an_empty_text_is_named_as_such() -> None:
    for parse in (parse_yaml_mapping, parse_yaml_list):
        with pytest.raises(UsageError, match=r"^f: is empty; expected a"):
            parse("# only a comment\n", source="f")


def test_the_line_of_an_entry_in_nested_mappings() -> None:
    text = "a: 1\nlist:\n  - name: x\n  - {name: y, more: {name: z}}\nname: x\n"
    assert [line_of(text, "name", value) for value in ("x", "y", "z", "none")] == [5, 4, 4, None]


def test_items_of_a_list_have_the_lines_of_their_keys() -> None:
    first, second, third = parse_yaml_list("# a list\n- a\n- b: 1\n  c: 2\n- [x, y]\n", source="f")
    assert first == ({"": "f, line 2"}, "a")
    assert second == ({"": "f, line 3", "b": "f, line 3", "c": "f, line 4"}, {"b": 1, "c": 2})
    assert third == ({"": "f, line 5"}, ["x", "y"])
    with pytest.raises(UsageError, match="f: expected a list"):
        parse_yaml_list("a: 1\n", source="f")


@pytest.mark.parametrize("text", ["? [a, b]\n: c\n", "a: {? {b: c} : d}\n"])
def test_a_key_that_is_no_name_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"^f, line 1: not valid YAML \(a list or a mapping cannot be a key\)"):
        parse_yaml_mapping(text, source="f")
