"""Methods on the same streams: metrics, intervals, differences."""

from __future__ import annotations

import json

import pytest

from nbt.report.streams.comparison import (
    average_accuracy_curve,
    compare_methods,
    effective_sample_size,
    forgetting_curve,
)
from nbt.tuning.intervals import t_interval, wilson_interval
from tests.sample_stream import BETTER, MATRIX, make_stream

LAST = tuple((*row[:2], row[2] - 0.06) for row in BETTER)


def test_one_stream_has_an_interval_over_images() -> None:
    [runs] = compare_methods([make_stream()]).methods
    assert runs.average_accuracy == wilson_interval(0.75, effective_sample_size((40, 50, 60)))
    assert runs.forgetting.mean == pytest.approx((0.3 + 0.1) / 2)
    assert runs.forgetting.low is None
    assert runs.forward_transfer is not None
    assert runs.forward_transfer.mean == pytest.approx((0.3 - 0.4 + 0.4 - 0.3) / 2)
    assert runs.seconds == 60.0


def test_effective_sample_size_of_equal_and_unequal_tasks() -> None:
    assert effective_sample_size((50, 50, 50)) == 150
    assert effective_sample_size((10, 10, 1000)) == round(9 / (0.1 + 0.1 + 0.001))


def test_streams_have_students_interval() -> None:
    records = [make_stream(), make_stream(matrix=BETTER, seed=1), make_stream(matrix=LAST, seed=2)]
    [runs] = compare_methods(records).methods
    values = [0.75, 0.9, 0.88]
    expected = t_interval(values)
    assert runs.average_accuracies == pytest.approx(values)
    assert runs.average_accuracy.mean == pytest.approx(expected.mean)
    assert runs.average_accuracy.low == pytest.approx(expected.low)
    assert expected.high is not None and expected.high > 1.0
    assert runs.average_accuracy.high == 1.0
    assert runs.matrix[2].tolist() == pytest.approx(
        [(0.6 + 0.95 * 2) / 3, (0.7 + 0.85 * 2) / 3, (0.95 + 0.9 + 0.84) / 3]
    )


def test_averages_and_forgetting_cover_trained_tasks() -> None:
    assert average_accuracy_curve(make_stream()) == pytest.approx([0.9, 0.75, 0.75])
    assert forgetting_curve(make_stream()) == pytest.approx([0.0, 0.2, 0.2])
    [runs] = compare_methods([make_stream()]).methods
    assert [average.mean for average in runs.averages()] == pytest.approx([0.9, 0.75, 0.75])


def test_differences_are_paired_by_seed() -> None:
    # The streams differ by far more than the methods differ on each of them.
    records = [
        make_stream("dlcft", MATRIX, seed=0),
        make_stream("dlcft", BETTER, seed=1),
        make_stream("joint", tuple(tuple(x + 0.02 for x in row) for row in MATRIX), seed=0),
        make_stream("joint", tuple(tuple(x + 0.02 for x in row) for row in BETTER), seed=1),
    ]
    comparison = compare_methods(records[::-1][2:] + records[::-1][:2])
    assert [runs.method for runs in comparison.methods] == ["dlcft", "joint"]
    assert comparison.seeds == [0, 1]
    first, second = comparison.methods
    assert comparison.versus(first) is None
    versus = comparison.versus(second)
    assert versus is not None and versus.low is not None and versus.high is not None
    assert versus.low == pytest.approx(0.02, abs=1e-6)
    assert versus.high == pytest.approx(0.02, abs=1e-6)


def test_class_incremental_streams_have_no_forward_transfer() -> None:
    [runs] = compare_methods([make_stream(scenario="class")]).methods
    assert runs.forward_transfer is None
    assert compare_methods([make_stream(scenario="class")]).to_json()["methods"][0]["forward_transfer"] is None


def test_document_is_strict_json() -> None:
    records = [make_stream("dlcft"), make_stream("ewc", BETTER)]
    document = json.loads(json.dumps(compare_methods(records, "nbt continual").to_json(), allow_nan=False))
    assert [method["method"] for method in document["methods"]] == ["dlcft", "ewc"]
    assert document["methods"][0]["versus_first"] is None
    assert document["methods"][1]["versus_first"]["mean"] == pytest.approx(0.15)
    assert document["methods"][1]["matrix"] == [list(row) for row in BETTER]
    assert document["streams"][0]["result"]["scores"][2]["accuracies"] == list(MATRIX[2])
    assert (document["scenario"], document["tasks"], document["seeds"], document["command"]) == (
        "task",
        3,
        [0],
        "nbt continual",
    )
