from __future__ import annotations

from nbt.settings import repair
from nbt.tuning.baseline_recipes import baseline_recipes, default_recipe, from_scratch_recipe, is_from_scratch
from nbt.tuning.space.space import Space


def test_training_from_scratch_differs_from_the_default_recipe_in_depth_and_rates() -> None:
    recipe, default = from_scratch_recipe(12), default_recipe(12)
    changed = {name for name, value in recipe.to_dict().items() if default.to_dict()[name] != value}
    assert changed == {"transfer_depth", "body_lr", "head_lr"}
    assert recipe.body_lr > default.body_lr and recipe.epochs == 12
    assert repair(recipe) == recipe
    for name in ("non_binary", "fast", "zapping", "injection"):
        assert Space.load(name).can_express(recipe)


def test_only_settings_without_transfer_are_from_scratch() -> None:
    assert is_from_scratch(from_scratch_recipe(12))
    assert not any(is_from_scratch(settings) for _, settings in baseline_recipes(12))
    assert is_from_scratch(repair(default_recipe(12).replace(init="kaiming")))
