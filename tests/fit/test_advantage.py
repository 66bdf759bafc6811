"""The advantage: the share of a random network's probe error that pretraining removes."""

from __future__ import annotations

import pytest

from nbt.fit.advantage import advantage, is_clear_advantage, is_no_advantage


@pytest.mark.parametrize(
    ("pretrained", "random", "expected"),
    [(0.9, 0.9, 0.0), (1.0, 0.5, 1.0), (0.4, 0.5, -0.2), (0.7, 0.4, 0.5), (1.0, 1.0, 0.0), (0.9992, 0.9995, -0.3)],
)
def test_the_share_of_the_random_networks_errors(pretrained: float, random: float, expected: float) -> None:
    assert advantage(pretrained, random) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pretrained", "random", "images", "is_clear"),
    [
        # One standard error of the difference is 2.9 points with 600 images, 9 with 60.
        (0.56, 0.50, 600, True),
        (0.55, 0.50, 600, False),
        (0.60, 0.50, 60, False),
        (0.70, 0.50, 60, True),
        (0.50, 0.60, 600, False),
        (1.0, 1.0, 600, False),
        (1.0, 0.999, 600, False),
    ],
)
def test_a_clear_advantage_exceeds_two_standard_errors(
    pretrained: float, random: float, images: int, is_clear: bool
) -> None:
    assert is_clear_advantage(pretrained, random, images) is is_clear


@pytest.mark.parametrize(
    ("pretrained", "random", "images", "is_none"),
    [
        # Two standard errors of the difference are 5.8 points with 600 images, 17 with 60; a tenth of the errors are 5.
        (0.48, 0.50, 600, True),
        (0.50, 0.50, 600, False),
        (0.50, 0.50, 6000, True),
        (0.51, 0.50, 6000, True),
        (0.53, 0.50, 6000, False),
        (0.38, 0.50, 60, False),
        (0.30, 0.50, 60, True),
        (0.99, 0.99, 600, False),
    ],
)
def test_no_advantage_is_less_than_a_tenth_of_the_errors_within_two_standard_errors(
    pretrained: float, random: float, images: int, is_none: bool
) -> None:
    assert is_no_advantage(pretrained, random, images) is is_none
    assert not (is_none and is_clear_advantage(pretrained, random, images))
