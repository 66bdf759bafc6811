"""The study of streams of tasks: its arms and its rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def verdict_of(gain: dict[str, float], n_missing: int = 0) -> str:
    """Returns the verdict where DLCFT is so much above EWC in the scenarios."""
    from continual import DLCFT, KEYS, SEEDS, streams, verdict

    rows: list[dict[str, Any]] = []
    for index, key in enumerate(KEYS):
        value = 0.5 + 0.001 * (index % 7) + (gain[key[1]] if key[-1] == DLCFT else 0.0)
        rows += [{"arm": ", ".join(key), "seed": seed, "changes": [], "val": value} for seed in SEEDS]
    return verdict(streams(rows[: len(rows) - n_missing]))


def test_the_verdict_follows_the_rule() -> None:
    assert verdict_of({"class": 0.3, "task": 0.1, "data": 0.05}) == "confirmed"
    assert verdict_of({"class": 0.3, "task": 0.1, "data": -0.05}) == "confirmed in part"
    assert verdict_of({"class": -0.1, "task": 0.1, "data": 0.1}) == "not confirmed"
    assert verdict_of({"class": 0.3, "task": 0.1, "data": 0.1}, n_missing=1).startswith("no verdict: 11 of 12")


def test_all_arms_have_the_same_optimiser_augmentation_and_head() -> None:
    from continual import KEYS, axes_of, settings_of

    all_settings = [settings_of(key, tuple(axis.values[1] for axis in axes_of(key))) for key in KEYS]
    recipes = [settings.recipe for settings in all_settings]
    assert {(recipe.optimizer, recipe.augmentation, recipe.epochs) for recipe in recipes} == {("adamw", "none", 10)}
    assert {settings.head for settings in all_settings} == {"random"}
    assert {round(recipe.head_lr / recipe.body_lr, 6) for recipe in recipes} == {10.0}


def test_every_arm_searches_a_setting_that_its_recipe_uses() -> None:
    from continual import KEYS, PROBE, axes_of, settings_of

    for key in KEYS:
        if key[-1] != PROBE:
            low, high = (tuple(axis.values[i] for axis in axes_of(key)) for i in (0, 2))
            for values in ((low[0], high[1]), (high[0], low[1])):
                assert settings_of(key, values) != settings_of(key, low), key


def test_the_ablations_differ_from_dlcft_in_one_setting() -> None:
    from continual import ABLATIONS, DLCFT, settings_of

    full = settings_of(("food15", "class", DLCFT), (1e-4, 10.0)).recipe.to_dict()
    changed = [settings_of(("food15", "class", arm), (1e-4, 10.0)).recipe.to_dict() for arm in ABLATIONS]
    names = [{name for name in full if full[name] != recipe[name]} for recipe in changed]
    assert names[:2] == [{"linearized"}, {"curvature"}] and "penalty_strength" in names[2]
