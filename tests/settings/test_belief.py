from __future__ import annotations

from typing import Any

import pytest

from nbt.errors import UsageError
from nbt.search_config import SearchConfig
from nbt.settings.belief import Belief, beliefs_text, parse_beliefs

LIST: list[dict[str, Any]] = [
    {"dimension": "frozen_depth", "around": 0.5, "spread": 0.2, "certainty": 0.7},
    {"dimension": "head_lr", "from": 0.01, "to": 0.1},
    {"dimension": "optimizer", "is": "adamw", "certainty": 1},
]


def test_lists_and_texts_mean_the_same() -> None:
    beliefs = parse_beliefs(LIST)
    assert beliefs[0] == Belief(dimension="frozen_depth", around=0.5, spread=0.2, certainty=0.7)
    assert beliefs[1] == Belief(dimension="head_lr", low=0.01, high=0.1, certainty=0.5)
    assert beliefs[2] == Belief(dimension="optimizer", choices=("adamw",), certainty=1.0)
    assert parse_beliefs(beliefs_text(LIST)) == beliefs
    assert parse_beliefs("[{dimension: head_lr, from: 0.01, to: 0.1}]") == beliefs[1:2]
    assert parse_beliefs(None) == ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"dimension": "head_lr"}, "expected a list"),
        ([{"around": 1}], "dimension: NAME"),
        ([{"dimension": "head_lr"}], "belief about head_lr: give one form"),
        ([{"dimension": "head_lr", "around": 1, "from": 0}], "give one form"),
        ([{"dimension": "head_lr", "from": 1, "spread": 1}], "give one form"),
        ([{"dimension": "head_lr", "arund": 1}], "unknown key 'arund'; did you mean around"),
        ([{"dimension": "head_lr", "around": "x"}], "around: expected a number, got 'x'"),
        ([{"dimension": "head_lr", "around": 1, "certainty": 1.5}], "certainty above 0 and at most 1"),
        ([{"dimension": "head_lr", "from": 2, "to": 1}], "from must be below to"),
    ],
)
def test_wrong_forms_are_refused(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_beliefs(value)


def test_a_configuration_file_holds_them_and_the_command_repeats_them() -> None:
    text = "dataset: digits\nbudget: 3\nbeliefs:\n- {dimension: frozen_depth, around: 0.5}\n"
    config = SearchConfig.from_yaml(text)
    assert SearchConfig.from_yaml(config.to_yaml()) == config
    assert parse_beliefs(config.beliefs) == (Belief(dimension="frozen_depth", around=0.5),)
    assert '--beliefs \'[{"dimension": "frozen_depth"' in config.command()
    with pytest.raises(UsageError, match="line 4: belief about frozen_depth: unknown key 'near'"):
        SearchConfig.from_yaml(text.replace("around", "near"))


def test_they_need_the_model_of_the_priors() -> None:
    with pytest.raises(UsageError, match="leave out heuristics=False"):
        SearchConfig(dataset="digits", budget="3", beliefs=LIST, heuristics=False).check_complete()


def test_two_beliefs_about_one_dimension_are_refused() -> None:
    text = "[{dimension: head_lr, from: 0.01}, {dimension: head_lr, to: 0.1}]"
    with pytest.raises(UsageError, match="belief about head_lr: there are 2; give one per dimension"):
        parse_beliefs(text)


def test_errors_name_the_line_of_the_belief() -> None:
    text = "dataset: digits\nbeliefs:\n- {dimension: frozen_depth, around: 0.5}\n- dimension: head_lr\n  arund: 1\n"
    with pytest.raises(UsageError, match=r"^c\.yaml, line 4: belief about head_lr: unknown key 'arund'; did you mean"):
        SearchConfig.from_yaml(text, source="c.yaml")
    twice = "beliefs:\n- {dimension: head_lr, from: 0.01}\n- {dimension: head_lr, to: 0.1}\n"
    with pytest.raises(UsageError, match=r"^c\.yaml, line 3: belief about head_lr: there are 2"):
        SearchConfig.from_yaml(twice, source="c.yaml")
