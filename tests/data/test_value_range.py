from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.data.value_range import (
    ValueStatistics,
    bits_in_use,
    find_value_ranges,
    is_out_of_range,
    own_range,
    to_8_bit,
    value_statistics,
)


@pytest.mark.parametrize(
    ("values", "statistics"),
    [
        (np.array([[3, 4095]], np.uint16), ValueStatistics("uint16", 3, 4095, bits=(0, 0, 1, *[0] * 9, 1))),
        (np.array([[-5, 70000]], np.int32), ValueStatistics("int32", -5, 70000)),
        (np.array([[0.25, 0.5]], np.float32), ValueStatistics("float", 0.25, 0.5)),
        (np.array([np.nan, np.inf, -np.inf, 3e38, 0.5], np.float32), ValueStatistics("float", 0.5, 0.5, 4)),
        (np.full(3, np.nan, np.float32), ValueStatistics("float", 0.0, 0.0, 3)),
    ],
)
def test_statistics(values: np.ndarray, statistics: ValueStatistics) -> None:
    assert value_statistics(values) == statistics


@pytest.mark.parametrize(
    ("kind", "extremes", "expected"),
    [
        ("uint16", [(0, 900), (7, 4000)], (0, 4095)),
        ("uint16", [(0, 4096)], (0, 8191)),
        ("uint16", [(0, 3)], (0, 255)),
        ("uint16", [(0, 40000), (0, 1)], (0, 65535)),
        ("int32", [(0, 200)], (0, 255)),
        ("int32", [(0, 2.0**31)], (0, 2.0**32 - 1)),
        ("int32", [(-1024, 900), (-1000, 3071)], (-1024, 3071)),
        ("float", [(0, 0.2), (0.1, 0.3)], (0, 1)),
        ("float", [(0, 200.5)], (0, 255)),
        ("float", [(0, 40000.0)], (0, 65535)),
        ("float", [(2, 51.0)], (2, 51)),
        ("float", [(-0.02, 1.03), (0, 0.9)], (-0.02, 1.03)),
        ("float", [(0, 0.9), (-9999, 1), (0, 0.8)], (0, 1)),  # one image with a marker of missing data
        ("float", [(0, 0.9), (0, 5000), (0, 0.8)], (0, 1)),
        ("float", [(0, 0)], (0, 1)),
    ],
)
def test_ranges_are_found_over_the_dataset(
    kind: str, extremes: list[tuple[float, float]], expected: tuple[float, float]
) -> None:
    statistics = [ValueStatistics(), *(ValueStatistics(kind, *pair) for pair in extremes)]
    assert find_value_ranges(statistics) == {kind: expected}


def test_each_kind_has_its_range() -> None:
    statistics = [ValueStatistics("uint16", 0, 1000), ValueStatistics("float", 0, 1), ValueStatistics()]
    assert find_value_ranges(statistics) == {"uint16": (0, 1023), "float": (0, 1)}
    assert find_value_ranges([ValueStatistics()]) == {}


def test_all_16_bit_values_are_scaled_as_in_earlier_versions() -> None:
    values = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(to_8_bit(values, (0, 65535)), np.rint(values / 257.0).astype(np.uint8))


def test_values_that_are_not_finite_are_clipped_or_become_black() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, -1.0, 0.5, 2.0], np.float32)
    assert to_8_bit(values, (0, 1)).tolist() == [0, 255, 0, 255, 0, 0, 128, 255]
    assert to_8_bit(np.full(2, 7.0), (7, 7)).tolist() == [0, 0]


def test_of_a_lone_image_the_full_range_is_used() -> None:
    assert own_range(ValueStatistics("uint16", 0, 100)) == (0, 65535)
    assert own_range(ValueStatistics("int32", 0, 100)) == (0, 255)
    assert own_range(ValueStatistics("float", 0, 1.0)) == (0, 1)
    assert own_range(ValueStatistics("float", 0, 300.0)) == (0, 65535)


def test_bits_in_use_and_values_out_of_range() -> None:
    assert [bits_in_use(pair) for pair in ((0, 4095), (0, 65535), (-1, 4095), (0, 4000), (0, 1))] == [
        12,
        16,
        None,
        None,
        None,
    ]
    assert is_out_of_range(ValueStatistics("uint16", 0, 5000), {"uint16": (0, 4095)})
    assert not is_out_of_range(ValueStatistics("uint16", 0, 4095), {"uint16": (0, 4095)})
    assert not is_out_of_range(ValueStatistics("float", 0, 5000), {"uint16": (0, 4095)})


@given(st.lists(st.integers(0, 65535), min_size=1))
def test_the_range_of_16_bit_values_holds_all_and_uses_the_upper_half(values: list[int]) -> None:
    (_, high) = find_value_ranges([value_statistics(np.array(values, np.uint16))])["uint16"]
    assert max(values) <= high and (high == 255 or high / 2 < max(values))
    assert to_8_bit(np.array([0, high]), (0, high)).tolist() == [0, 255]


class TestDefects:
    def test_a_few_hot_values_do_not_count(self) -> None:
        usual = np.full((100, 100), 4000, np.uint16)
        hot = usual.copy()
        hot[3, 4] = 65535
        statistics = [value_statistics(values) for values in (usual, hot)]
        assert find_value_ranges(statistics) == {"uint16": (0.0, 4095.0)}
        assert is_out_of_range(statistics[1], find_value_ranges(statistics))

    @pytest.mark.parametrize(("value", "n"), [(8000, 1), (65535, 30)])
    def test_one_bit_more_or_many_values_count(self, value: int, n: int) -> None:
        values = np.full((100, 100), 4000, np.uint16)
        values.ravel()[:n] = value
        assert find_value_ranges([value_statistics(values)]) == {"uint16": (0.0, float(2 ** value.bit_length() - 1))}
