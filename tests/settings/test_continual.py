"""Tests of stream settings: rejected values and the overrides of every method."""

from __future__ import annotations

import json

import pytest

from nbt.errors import UsageError
from nbt.settings import TransferSettings, repair
from nbt.settings.continual import (
    METHODS,
    SCENARIOS,
    TARGET_SCALES,
    ContinualSettings,
    default_tasks,
    method_overrides,
)

PLAIN = TransferSettings()


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_valid_recipe_that_survives_repair_and_json(method: str, scenario: str) -> None:
    recipe = PLAIN.replace(**method_overrides(method, scenario))
    settings = ContinualSettings(scenario=scenario, tasks=3, recipe=recipe)
    assert ContinualSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    repaired = repair(recipe)
    for name, value in method_overrides(method, scenario).items():
        assert repaired.value(name) == value, f"repair undoes {name} of {method}"


def test_methods_are_different_recipes() -> None:
    recipes = [repair(PLAIN.replace(**method_overrides(name, "class"))).to_dict() for name in METHODS]
    assert all(recipes.count(recipe) == 1 for recipe in recipes)


def test_the_target_scale_depends_on_the_scenario() -> None:
    assert {name: method_overrides("dlcft", name)["target_scale"] for name in SCENARIOS} == TARGET_SCALES
    assert METHODS["dlcft"]["target_scale"] == TARGET_SCALES["class"], "overrides do not change the table"
    assert "target_scale" not in method_overrides("ewc", "data")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenario": "clas"}, "did you mean class"),
        ({"factors": "both"}, "factors 'both'"),
        ({"head": "zero"}, "head 'zero'"),
        ({"vectors": "none"}, "vectors 'none'"),
        ({"tasks": 1}, "2 or more"),
        ({"memory_bytes": -1}, "0 bytes or more"),
        ({"recipe": PLAIN.replace(linearized=True, head_scale=0.0)}, "linear probe"),
        ({"recipe": PLAIN.replace(linearized=True, method="ewc")}, "dlcft"),
    ],
)
def test_errors_name_the_value_and_the_remedy(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ContinualSettings(**{"scenario": "class", "recipe": PLAIN, **change})  # type: ignore[arg-type]


def test_unknown_methods_and_scenarios_are_named() -> None:
    with pytest.raises(UsageError, match="did you mean dlcft"):
        method_overrides("dclft", "class")
    with pytest.raises(UsageError, match="stream"):
        method_overrides("ewc", "stream")


@pytest.mark.parametrize(
    ("scenario", "classes", "tasks"),
    [("data", 3, 5), ("class", 100, 5), ("class", 3, 3), ("task", 5, 2), ("task", 9, 4)],
)
def test_default_number_of_tasks(scenario: str, classes: int, tasks: int) -> None:
    assert default_tasks(scenario, classes) == tasks
