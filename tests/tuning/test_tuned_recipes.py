from __future__ import annotations

import json
from pathlib import Path

from nbt.settings import TransferSettings, repair
from nbt.tuning.space.space import Space
from nbt.tuning.tuned_recipes import TUNED_CHANGES, tuned_default

STUDY = Path(__file__).parents[2] / "studies" / "results" / "tuned_default.json"


def test_the_recipe_is_that_of_the_committed_study() -> None:
    assert json.loads(STUDY.read_text())["changes"] == TUNED_CHANGES
    assert tuned_default().to_dict() == {**TransferSettings().to_dict(), **TUNED_CHANGES}


def test_a_search_can_try_it_with_the_length_of_its_trials() -> None:
    space, recipe = Space.load("non_binary"), tuned_default(7)
    assert recipe == repair(recipe) and recipe.epochs == 7
    assert space.settings(space.params(recipe), 7) == recipe
