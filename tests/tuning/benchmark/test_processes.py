from __future__ import annotations

import math

import pytest

from nbt.tuning.benchmark.processes import run_searches


@pytest.mark.parametrize("workers", [1, 2])
def test_each_key_has_its_own_result(workers: int) -> None:
    assert dict(run_searches(math.factorial, [3, 1, 4], workers)) == {3: 6, 1: 1, 4: 24}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_ends_the_searches(workers: int) -> None:
    with pytest.raises(ValueError, match="factorial"):
        list(run_searches(math.factorial, [3, -1, 4], workers))
