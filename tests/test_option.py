"""Options: the canonical value of every kind, and the messages of values that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from nbt.errors import UsageError
from nbt.option import KINDS, Option, check_number, is_auto_budget, split_codes
from nbt.search_config import SearchConfig


def option(kind: str, **facts: Any) -> Option:
    return Option(kind=kind, role="search", help="A sentence.", **facts)


@pytest.mark.parametrize(
    ("kind", "facts", "value", "checked"),
    [
        ("text", {}, "a", "a"),
        ("path", {}, "a/b", "a/b"),
        ("uri", {}, "sqlite:///s.db", "sqlite:///s.db"),
        ("whole", {}, 1, 1),
        ("number", {}, 0.5, 0.5),
        ("choice", {"choices": ("a", "b")}, "b", "b"),
        ("flag", {}, False, False),
        ("budget", {}, 20, "20"),
        ("gpus", {}, "auto", "auto"),
        ("gpus", {}, 0.5, 0.5),
        ("workers", {}, "auto", "auto"),
        ("workers", {}, 2, 2),
        ("codes", {}, ["nbt203, nbt201", "NBT203"], "NBT203,NBT201"),
        ("beliefs", {}, [], "[]"),
        ("backbones", {}, ["conv3"], '[{"name": "conv3"}]'),
        ("teachers", {}, ["conv3"], "conv3"),
        ("teachers", {}, ["conv3", "conv4"], '["conv3", "conv4"]'),
    ],
)
def test_a_value_is_returned_in_its_canonical_type(kind: str, facts: dict[str, Any], value: Any, checked: Any) -> None:
    assert kind in KINDS
    result = option(kind, **facts).check("--x", value)
    assert (type(result), result) == (type(checked), checked)
    assert option(kind, **facts).check("--x", result) == result


@pytest.mark.parametrize(
    ("kind", "facts", "value", "message"),
    [
        ("text", {}, "", "^--x: expected text, got an empty text$"),
        ("path", {"metavar": "NAME|FOLDER"}, "", r"^--x: expected NAME\|FOLDER, got an empty text$"),
        ("gpus", {"metavar": "F"}, "", "^--x: expected F, got an empty text$"),
        ("backbones", {"metavar": "LIST"}, "", "^--x: expected LIST, got an empty text$"),
        ("beliefs", {"metavar": "LIST"}, " ", "^--x: expected LIST, got an empty text$"),
        ("teachers", {"metavar": "NAME"}, "", "^--x: expected NAME, got an empty text$"),
        ("text", {}, 3, "^--x: expected text, got 3; numbers and dates"),
        ("whole", {}, 0, "^--x: 0 is not 1 or more"),
        ("whole", {}, True, "^--x: expected a whole number"),
        ("whole", {}, 1.0, "^--x: expected a whole number"),
        ("number", {"positive": True}, 0, "^--x: 0 is not above 0"),
        ("number", {}, float("nan"), "^--x: expected a number"),
        ("choice", {"choices": ("apple", "pear")}, "aple", "^--x 'aple': did you mean apple"),
        ("flag", {}, 1, "^--x: expected true or false"),
        ("budget", {}, 2.5, "^--x: expected a whole number of trials or a text"),
        ("workers", {}, "many", "^--x 'many': expected auto or a whole number"),
        ("workers", {}, 0, "^--x: 0 is not 1 or more"),
        ("teachers", {}, [], "expected BACKBONE"),
    ],
)
def test_other_values_are_refused(kind: str, facts: dict[str, Any], value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        option(kind, **facts).check("--x", value)


def test_the_rule_of_an_option_sees_its_canonical_value() -> None:
    seen: list[tuple[str, Any]] = []
    option("budget", rule=lambda name, value: seen.append((name, value))).check("--budget", 20)
    assert seen == [("--budget", "20")]


def test_numbers_have_bounds_and_a_reason() -> None:
    check_number("--classes", None, 2, 5)
    check_number("--classes", 5, 2, 5)
    with pytest.raises(UsageError, match=r"^--classes 6: expected a whole number, 2 \.\.\. 5; it has 5$"):
        check_number("--classes", 6, 2, 5, "it has 5")
    with pytest.raises(UsageError, match=r"^--classes 1: expected a whole number, 2 or more$"):
        check_number("--classes", 1, 2, None)


def test_the_budget_auto_has_a_limit_or_none() -> None:
    assert is_auto_budget(" AUTO ") and is_auto_budget("auto, at most 40")
    assert not is_auto_budget("automatic") and not is_auto_budget(20)


def test_codes_may_be_a_list_or_a_text() -> None:
    for codes in ("nbt203, NBT207", ("NBT203,NBT207", "nbt203"), ["NBT203", "NBT207"]):
        assert SearchConfig(dataset="d", budget="1", ignore=codes).ignore == "NBT203,NBT207"
    assert SearchConfig.from_yaml("dataset: d\nignore: [NBT203, NBT207]\n").ignore == "NBT203,NBT207"
    assert split_codes(None) == ()
