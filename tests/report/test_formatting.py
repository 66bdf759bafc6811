import math
from datetime import UTC, datetime

import pytest

from nbt.report.formatting import (
    duration,
    format_interval,
    format_loss,
    format_number,
    format_timestamp,
    one_line,
    percent,
    pluralise,
    points,
    points_interval,
    sparkline,
    truncated,
)
from nbt.tuning.intervals import Interval

NONE = "\N{EN DASH}"


def test_shares_are_percent() -> None:
    assert [percent(value) for value in (0.8421, 1.0, 0.0, None, math.nan)] == [
        "84.2 %",
        "100.0 %",
        "0.0 %",
        NONE,
        NONE,
    ]
    assert percent(0.8, 0) == "80 %"


def test_differences_have_signs_and_no_minus_zero() -> None:
    assert [points(value) for value in (0.0312, -0.0041, 0.0, -0.0001)] == ["+3.1", "\N{MINUS SIGN}0.4", "+0.0", "+0.0"]
    assert points(-0.0312, signed=False) == "3.1"


def test_intervals_show_their_bounds_or_a_dash() -> None:
    assert format_interval(Interval(mean=0.8, low=0.7951, high=0.806, n=3)) == "79.5–80.6 %"  # noqa: RUF001 - a range
    assert format_interval(Interval(mean=0.98, low=0.95, high=1.01, n=3)).endswith("100.0 %")
    assert format_interval(Interval(mean=0.01, low=-0.02, high=0.04, n=3)).startswith("0.0")
    assert points_interval(Interval(mean=0.01, low=-0.002, high=0.02, n=3)) == "\N{MINUS SIGN}0.2 to +2.0"
    assert format_interval(Interval(mean=0.8, low=None, high=None, n=1)) == NONE


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (0.0123456, "0.0123"),
        (1e-5, "1e-5"),
        (1e-12, "1e-12"),
        (-1.25, "\N{MINUS SIGN}1.25"),
        (-0.0, "0"),
        (32, "32"),
        ("sgd", "sgd"),
        (False, "false"),
        (None, NONE),
        (math.inf, NONE),
        (1e6, "1e6"),
    ],
)
def test_settings_have_three_significant_digits(value: float | str | None, text: str) -> None:
    assert format_number(value) == text


def test_losses_timestamps_and_counts() -> None:
    assert [format_loss(1.2345), format_loss(math.inf), format_loss(None)] == ["1.234", NONE, NONE]
    assert format_timestamp(datetime(2026, 3, 1, 9, 30, tzinfo=UTC)) == "2026-03-01 09:30 UTC"
    assert [pluralise(1, "epoch"), pluralise(2, "epoch"), pluralise(2, "class", "classes")] == [
        "1 epoch",
        "2 epochs",
        "2 classes",
    ]


def test_line_breaks_are_removed() -> None:
    assert one_line("a\n# b\r\n\tc\x00\x1b[31m\u2028d") == "a # b c [31m d"


def test_long_labels_are_cut() -> None:
    assert [truncated("abcdef", most) for most in (6, 5)] == ["abcdef", "abcd…"]


def test_sparklines_rise_and_are_thinned() -> None:
    assert sparkline([0.0, 0.5, 1.0], 0.0, 1.0) == "▁▅█"
    assert sparkline([None, math.nan, 1.0], 0.0, 1.0) == "  █"
    assert sparkline([], 0.0, 1.0) == ""
    assert sparkline([0.3, 0.3], 0.3, 0.3) == "▁▁"
    long = sparkline([i / 99 for i in range(100)], 0.0, 1.0, width=8)
    assert len(long) == 8
    assert (long[0], long[-1]) == ("▁", "█")
    assert list(long) == sorted(long)
