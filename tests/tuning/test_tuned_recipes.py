from __future__ import annotations

import json
from pathlib import Path

from nbt.settings import TransferSettings, repair
from nbt.tuning.space.space import Space
from nbt.tuning.tuned_recipes import tuned_default

STUDY = Path(__file__).parents[2] / "studies" / "results" / "tuned_default.json"


def test_the_recipe_is_that_of_the_committed_study() -> None:
    chosen = json.loads(STUDY.read_text())["changes"]
    expected = {**TransferSettings(epochs=7).to_dict(), **chosen}
    assert {**tuned_default(7).to_dict(), "epochs": 7} == expected
    assert tuned_default(7) != TransferSettings(epochs=7)


def test_a_search_can_try_it() -> None:
    space, recipe = Space.load("non_binary"), tuned_default(12)
    assert recipe == repair(recipe) and recipe.epochs == 12
    assert space.settings(space.params(recipe), 12) == recipe
