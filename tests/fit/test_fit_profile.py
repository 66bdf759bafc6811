"""Conversion of profiles to and from JSON."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from nbt.fit.fit_profile import LAYER_COLUMNS, FitProfile


def make_profile() -> FitProfile:
    rows = [dict.fromkeys(LAYER_COLUMNS, 0.5 + i) | {"unit": f"u{i}", "mean_shift": math.nan} for i in range(3)]
    return FitProfile({"logme": 0.1, "odd": math.nan}, pd.DataFrame(rows), {"dataset": "d"}, {"leep": "no head"})


def test_json_round_trip() -> None:
    profile = make_profile()
    text = profile.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    restored = FitProfile.from_json(text)
    pd.testing.assert_frame_equal(restored.layers, profile.layers)
    assert math.isnan(restored.scalars["odd"])
    assert restored.scalars["logme"] == 0.1
    assert (restored.facts, restored.left_out) == (profile.facts, profile.left_out)
    assert restored.to_json() == text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', '{"version": 99}', '{"version": 1, "layers": 3}'])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        FitProfile.from_json(text)


def test_facts_are_replaced_in_a_copy() -> None:
    profile = make_profile()
    assert profile.with_facts(dataset="e", seed=1).facts == {"dataset": "e", "seed": 1}
    assert profile.facts == {"dataset": "d"}
