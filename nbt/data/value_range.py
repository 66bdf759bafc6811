"""Value ranges: how grey values and colours of more than 8 bits become 0 ... 255.

A file of 16 bits often holds values of fewer bits, such as the 12 bits of a camera, and floats have no fixed range. The
range is therefore found over all images of a dataset, from statistics of each file, and kept with the model, so that
predictions use the range of the training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

ValueRange = tuple[float, float]
ValueRanges = Mapping[str, ValueRange]
"""The values that become 0 and 255, by kind of values: "uint16", "int32" (any other integers) or "float"."""

# A float beyond this multiple of what is usual over the images is taken for a marker or a fault.
_OUTLIER_FACTOR = 10.0
# Integers with two bits more than all but this share of the values are taken for defects of a sensor.
_DEFECT_SHARE = 1e-4
_DEFECT_BITS = 2
# A larger float marks missing data, as in GeoTIFF.
_LARGEST_FLOAT = 1e30


class ValueStatistics(NamedTuple):
    """Statistics of the values of one image file.

    Attributes:
        kind: Kind of the values, see `ValueRanges`; "" for values of 8 bits or fewer.
        low: Least finite value; 0 where no value is finite.
        high: Greatest finite value; 0 where no value is finite.
        not_finite: Number of values that are not finite.
        bits: Numbers of integers of 0, 1, 2, ... bits; empty for floats and where there are negative values.
    """

    kind: str = ""
    low: float = 0.0
    high: float = 0.0
    not_finite: int = 0
    bits: tuple[int, ...] = ()


def value_statistics(values: npt.NDArray[np.generic]) -> ValueStatistics:
    """Returns the statistics of the values of an image, of any shape and of more than 8 bits."""
    if values.dtype.kind != "f":
        kind = "uint16" if values.dtype.newbyteorder("=") == np.uint16 else "int32"
        low = float(values.min())
        return ValueStatistics(kind, low, float(values.max()), bits=() if low < 0 else count_bits(values))
    finite = values[_is_finite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return ValueStatistics("float", low, high, values.size - finite.size)


def count_bits(values: npt.NDArray[np.generic]) -> tuple[int, ...]:
    """Returns the numbers of integers of 0, 1, 2, ... bits, of which none is negative."""
    return tuple(np.bincount(np.frexp(values)[1].ravel()).tolist())


def own_range(statistics: ValueStatistics) -> ValueRange:
    """Returns the range of an image whose dataset is unknown: the full range of its kind that holds its values."""
    if statistics.kind == "float" and statistics.high <= 1.0:
        return 0.0, 1.0
    return (0.0, 65535.0) if statistics.kind == "uint16" or statistics.high > 255.0 else (0.0, 255.0)


def find_value_ranges(statistics: Iterable[ValueStatistics]) -> dict[str, ValueRange]:
    """Returns the value ranges of a dataset.

    Integers have the range 0 ... 2^b - 1 of the bits b in use, 8 or more, or with negative values the range from the
    least to the greatest. Two or more bits that at most one in 10,000 values uses, as of defects of a sensor, do not
    count. Floats have the range 0 ... 1, 0 ... 255 or 0 ... 65535 where they use it, else that from the
    least to the greatest value; values that are ten times as large as those of the median image are out of range.

    Args:
        statistics: Statistics of each file; those of values of 8 bits are ignored.
    """
    by_kind: dict[str, list[ValueStatistics]] = {}
    for item in statistics:
        if item.kind:
            by_kind.setdefault(item.kind, []).append(item)
    return {kind: (_float_range if kind == "float" else _integer_range)(items) for kind, items in by_kind.items()}


def to_8_bit(values: npt.NDArray[np.generic], value_range: ValueRange) -> npt.NDArray[np.uint8]:
    """Scales values to 0 ... 255; values outside the range are clipped, and NaN becomes 0.

    Args:
        values: The values, of any shape.
        value_range: The values that become 0 and 255.
    """
    low, high = value_range
    numbers = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    scaled = (numbers - low) * (255.0 / ((high - low) or 1.0))
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def is_out_of_range(statistics: ValueStatistics, ranges: ValueRanges) -> bool:
    """Returns whether an image has finite values outside the range of its kind, which are clipped."""
    if statistics.kind not in ranges:
        return False
    low, high = ranges[statistics.kind]
    return statistics.low < low or statistics.high > high


def bits_in_use(value_range: ValueRange) -> int | None:
    """Returns b for a range 0 ... 2^b - 1 of integers, else None."""
    low, high = value_range
    bits = round(high).bit_length()
    return bits if low == 0 and bits >= 8 and high == 2**bits - 1 else None


def _integer_range(statistics: list[ValueStatistics]) -> ValueRange:
    low, high = min(item.low for item in statistics), max(item.high for item in statistics)
    if low < 0:
        return low, high
    largest = max(int(high).bit_length(), 8)
    counts = np.zeros(max(33, largest + 1), dtype=np.int64)
    for item in statistics:
        counts[: len(item.bits)] += np.array(item.bits, dtype=np.int64)
    n_longer = counts.sum() - counts.cumsum()
    usual = max(int((n_longer > _DEFECT_SHARE * counts.sum()).sum()), 8) if counts.any() else largest
    return 0.0, float(2 ** (usual if largest - usual >= _DEFECT_BITS else largest) - 1)


def _float_range(statistics: list[ValueStatistics]) -> ValueRange:
    limit = _OUTLIER_FACTOR * float(np.median([max(-item.low, item.high) for item in statistics]))
    low = min((item.low for item in statistics if item.low >= -limit), default=0.0)
    high = max((item.high for item in statistics if item.high <= limit), default=0.0)
    for least, greatest in ((0.0, 1.0), (128.0, 255.0), (32768.0, 65535.0)):
        if low >= 0.0 and least <= high <= greatest:
            return 0.0, greatest
    return low, high


def _is_finite(values: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    finite: npt.NDArray[np.bool_] = (
        np.abs(values.astype(np.float64)) <= _LARGEST_FLOAT
    )  # a comparison with NaN is false
    return finite
