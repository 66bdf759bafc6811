"""Metrics of a stream, compared with values computed by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from nbt.settings import TransferSettings
from nbt.settings.continual import ContinualSettings
from nbt.training.continual.metrics import average_accuracy, backward_transfer, forgetting, forward_transfer
from nbt.training.continual.results import ContinualResult, TaskScore

R = np.array([[0.9, 0.3, 0.2], [0.5, 0.8, 0.4], [0.6, 0.7, 1.0]])


def test_metrics_of_a_complete_stream() -> None:
    assert average_accuracy(R) == pytest.approx((0.6 + 0.7 + 1.0) / 3)
    assert forgetting(R) == pytest.approx(((0.9 - 0.6) + (0.8 - 0.7)) / 2)
    assert backward_transfer(R) == pytest.approx(((0.6 - 0.9) + (0.7 - 0.8)) / 2)
    assert forward_transfer(R, (0.5, 0.1, 0.25)) == pytest.approx(((0.3 - 0.1) + (0.4 - 0.25)) / 2)


def test_forgetting_is_relative_to_the_best_accuracy_so_far() -> None:
    rising = np.array([[0.5, 0.0, 0.0], [0.9, 0.5, 0.0], [0.8, 0.5, 0.5]])
    assert forgetting(rising) == pytest.approx((0.1 + 0.0) / 2)
    assert backward_transfer(rising) == pytest.approx((0.3 + 0.0) / 2)


def test_metrics_of_a_stopped_stream_cover_the_trained_tasks() -> None:
    assert average_accuracy(R[:2]) == pytest.approx((0.5 + 0.8) / 2)
    assert forgetting(R[:2]) == pytest.approx(0.4)
    assert forward_transfer(R[:2], (0.0, 0.0, 0.0)) == pytest.approx((0.3 + 0.4) / 2)
    assert average_accuracy(R[:1]) == pytest.approx(0.9)
    assert forgetting(R[:1]) == 0.0 == backward_transfer(R[:1])
    assert forward_transfer(R[:1], (0.0, 0.1, 0.0)) == pytest.approx(0.2)


def make_result(untrained: tuple[float, ...] | None) -> ContinualResult:
    scores = tuple(
        TaskScore(number + 1, (2 * number, 2 * number + 1), 7, math.inf if number == 2 else 0.5, tuple(row), 1.5,
                  diverged=number == 2)
        for number, row in enumerate(R.tolist())
    )  # fmt: skip
    settings = ContinualSettings(scenario="task", tasks=3, recipe=TransferSettings(method="ewc"))
    return ContinualResult(settings, 3, "val", tuple("abcdef"), scores, untrained)


@pytest.mark.parametrize("untrained", [None, (0.5, 0.1, 0.25)])
def test_json_round_trip_of_a_result(untrained: tuple[float, ...] | None) -> None:
    result = make_result(untrained)
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert ContinualResult.from_dict(values) == result
    assert values["average_accuracy"] == pytest.approx(average_accuracy(R))
    assert values["matrix"] == R.tolist()
    assert values["seconds"] == 4.5 and values["diverged"]
    assert (values["forward_transfer"] is None) == (untrained is None)
    assert values["scores"][2]["train_loss"] is None
