from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.cli.display.fit_chart import (
    HEIGHT,
    axis_maximum,
    bar_text,
    column_character,
    draw_bars,
    draw_columns,
    evenly_spaced,
)
from tests.fit_profiles import make_profile

accuracies = st.floats(0, 1)


def test_columns_of_known_height() -> None:
    lines = [text.plain for text in draw_columns(make_profile(pretrained=(0.5, 1.0), random=(0.25, 0.0)), 80)]
    bars = [line[6:] for line in lines[:HEIGHT]]
    assert bars == [*["    █ "] * 4, *[" █  █ "] * 2, *[" ██ █ "] * 2]
    assert lines[0].startswith("100 %")
    assert any(line.strip() == "knee: unit 2 of 2 ▲" or line.strip() == "▲ knee: unit 2 of 2" for line in lines)


def test_random_weights_are_not_called_pretrained() -> None:
    for weights, names in (("default", ("pretrained", "random")), ("none", ("measured", "other random"))):
        profile = make_profile(weights=weights)
        lines = draw_bars(profile)
        assert tuple(lines[0].split(None, 2)[1:]) == names
        caption = draw_columns(profile, 120)[-1].plain
        assert ("pretrained" in caption) == (weights == "default")
    assert "█ measured weights (random)  █ other random weights" in caption


def test_the_mark_is_below_the_column_of_the_knee() -> None:
    profile = make_profile(pretrained=(0.1, *(0.6,) * 30), random=(0.1,) * 31, knee_depth=10 / 31)
    lines = [text.plain for text in draw_columns(profile, 120)]
    [mark] = [line for line in lines if "▲" in line]
    assert mark.index("▲") == 6 + 1 + 3 * 9


@given(units=st.integers(1, 90), width=st.integers(20, 130), knee=st.floats(0, 1))
def test_the_chart_fits_the_terminal(units: int, width: int, knee: float) -> None:
    profile = make_profile(pretrained=[0.5] * units, random=[0.2] * units, knee_depth=knee)
    bars = draw_columns(profile, width)[: HEIGHT + 1]
    assert max(len(text.plain) for text in bars) <= max(width, 10)


@given(count=st.integers(1, 200), limit=st.integers(1, 60), keep=st.integers(0, 199))
def test_the_shown_units_include_the_last_and_the_knee(count: int, limit: int, keep: int) -> None:
    keep = min(keep, count - 1)
    shown = evenly_spaced(count, limit, keep)
    assert len(shown) <= limit
    assert shown == sorted(set(shown))
    assert shown[-1] == count - 1
    if limit > 1:
        assert keep in shown


@given(value=accuracies)
def test_a_column_is_as_high_as_its_value(value: float) -> None:
    filled = sum(" ▁▂▃▄▅▆▇█".index(column_character(value, 1.0, row)) for row in range(HEIGHT))
    assert abs(filled - 8 * HEIGHT * value) <= 1
    assert (filled > 0) == (value > 0)


def test_unknown_values_are_marked() -> None:
    assert [column_character(math.nan, 1.0, row) for row in (0, 1)] == ["?", " "]
    assert "-" in draw_bars(make_profile(pretrained=(math.nan, 0.5), random=(0.2, 0.2)))[1]


@pytest.mark.parametrize(("highest", "top"), [(0.0, 0.1), (0.03, 0.1), (0.3, 0.3), (0.31, 0.4), (1.0, 1.0)])
def test_the_axis_ends_at_a_multiple_of_a_tenth(highest: float, top: float) -> None:
    assert axis_maximum([0.0, highest, math.nan]) == pytest.approx(top)


def test_bars_are_ascii_lines() -> None:
    lines = draw_bars(make_profile())
    assert all(line.replace("±", "").isascii() for line in lines)
    assert len(lines) == 6
    assert lines[-1].endswith("<- knee")
    assert lines[-1].split()[0] == "features.4"


def test_bars_mark_the_lower_accuracy() -> None:
    assert bar_text(1.0, 0.5, 1.0) == "#" * 15 + "=" * 15
    assert bar_text(0.5, 1.0, 1.0) == "#" * 15 + "|" + "#" * 14
