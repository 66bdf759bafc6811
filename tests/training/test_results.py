from __future__ import annotations

import json
import math

import pytest

from nbt.training.results import EpochResult, last_accuracy

PLAIN = EpochResult(1, 0.5, 0.4, 0.75, 2.0)


@pytest.mark.parametrize(
    "result",
    [
        PLAIN,
        EpochResult(2, 0.5, None, None, 2.0),
        EpochResult(3, math.inf, None, 0.0, 2.0, diverged=True),
        EpochResult(
            4,
            0.5,
            0.4,
            0.0,
            2.0,
            False,
            0.0,
            metrics={"macro_f1": 0.2, "auroc": None},
            watched_metrics={"log_loss": 1.5},
        ),
    ],
)
def test_an_epoch_is_restored_from_json(result: EpochResult) -> None:
    assert EpochResult.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False))) == result


def test_optional_values_that_are_missing_are_not_written() -> None:
    assert PLAIN.to_dict().keys() == {"epoch", "train_loss", "val_loss", "val_accuracy", "seconds", "diverged"}


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([], None),
        ([EpochResult(1, 0.5, None, None, 1.0)], None),
        ([EpochResult(1, 0.5, 0.4, 0.9, 1.0), EpochResult(2, 0.5, 0.4, 0.7, 1.0)], 0.7),
        ([EpochResult(1, 0.5, 0.4, 0.9, 1.0), EpochResult(2, math.inf, None, 0.5, 1.0, diverged=True)], 0.0),
    ],
)
def test_the_value_is_that_of_the_last_epoch(curve: list[EpochResult], expected: float | None) -> None:
    assert last_accuracy(curve) == expected
