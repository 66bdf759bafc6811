"""Thresholds of the similarity: the published ones, .35 and .5, on the scale of `tli_similarity`."""

from __future__ import annotations

import logging

import pytest

from nbt.cli.inject import _warn_if_dissimilar
from nbt.transfer.injection.thresholds import HARMFUL_SIMILARITY, MIN_SAFE_SIMILARITY


def test_the_published_values_are_shifted_by_the_difference_of_the_scales() -> None:
    assert (HARMFUL_SIMILARITY, MIN_SAFE_SIMILARITY) == (0.23, 0.38)


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (0.22, "every published injection below 0.23 was worse than random weights"),
        (0.30, "most published injections from 0.23 to 0.38 gained little"),
        (0.38, ""),
        (0.45, ""),
    ],
)
def test_a_warning_below_the_thresholds(similarity: float, message: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _warn_if_dissimilar(similarity)
    assert message in caplog.text
    assert bool(caplog.text) == bool(message)
