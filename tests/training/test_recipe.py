from __future__ import annotations

import pytest

from nbt.errors import UsageError
from nbt.settings import TransferSettings, repair
from nbt.training.recipe import check_recipe, count_batches, stall_steps

TEN = TransferSettings(epochs=10, batch_size=16)


@pytest.mark.parametrize(("n", "size", "batches"), [(1, 16, 1), (16, 16, 1), (17, 16, 2), (160, 16, 10), (0, 16, 1)])
def test_batches_of_an_epoch(n: int, size: int, batches: int) -> None:
    assert count_batches(n, size) == batches


@pytest.mark.parametrize(("share", "steps"), [(0.0, 0), (0.001, 1), (0.1, 10), (0.104, 10), (1.0, 100)])
def test_a_stall_is_a_share_of_all_steps_and_one_at_least(share: float, steps: int) -> None:
    assert stall_steps(TEN.replace(stall=share), 160) == steps


@pytest.mark.parametrize("period", [10, 11, 500])
def test_a_zap_that_never_comes_is_refused_unless_repaired(period: int) -> None:
    settings = TEN.replace(zap_period=period)
    with pytest.raises(UsageError, match=f"zap_period: {period} is never reached in 10 epochs"):
        check_recipe(settings, 160)
    check_recipe(repair(settings), 160)


@pytest.mark.parametrize("period", [0, 1, 9])
def test_a_zap_that_comes_and_none_are_fine(period: int) -> None:
    check_recipe(TEN.replace(zap_period=period), 160)
    check_recipe(TEN.replace(zap_period=0, epochs=1), 160)


@pytest.mark.parametrize(("n", "size", "fine"), [(1, 16, False), (3, 2, False), (4, 2, True), (17, 16, True)])
def test_batch_statistics_need_two_images_in_the_smallest_batch(n: int, size: int, fine: bool) -> None:
    """17 images in batches of up to 16 are 9 and 8."""
    settings = TEN.replace(feature_norm="batch", batch_size=size)
    check_recipe(settings.replace(feature_norm="target"), n)
    if fine:
        check_recipe(settings, n)
    else:
        with pytest.raises(UsageError, match="leave one of 1"):
            check_recipe(settings, n)
