"""Metrics: the score is in 0 ... 1, higher for a better value, and its value can be recovered."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.metrics import DEFAULT_METRIC, METRICS, Metric
from nbt.search_config import SearchConfig
from nbt.training.results import EpochResult, last_accuracy, last_score

metrics = st.sampled_from(list(METRICS.values()))
UNITS = {"accuracy": "%", "balanced_accuracy": "%", "macro_f1": "%", "auroc": "%", "log_loss": "nats"}


@st.composite
def values(draw: st.DrawFn) -> tuple[Metric, float, float]:
    """Draws a metric and two of its values; a cross-entropy above 700 nats underflows."""
    metric = draw(metrics)
    one = st.floats(metric.low, min(metric.high, 700.0))
    return metric, draw(one), draw(one)


@given(values())
def test_scores_are_shares_that_rise_with_better_values(drawn: tuple[Metric, float, float]) -> None:
    metric, first, second = drawn
    better, worse = (max, min) if metric.higher_is_better else (min, max)
    high, low = metric.score(better(first, second)), metric.score(worse(first, second))
    assert 0.0 <= low <= high <= 1.0
    assert metric.value(high) == pytest.approx(better(first, second), rel=1e-9, abs=1e-12)


@given(values())
def test_a_difference_of_scores_is_that_of_the_values(drawn: tuple[Metric, float, float]) -> None:
    metric, first, second = drawn
    scores = metric.score(first), metric.score(second)
    if min(scores) > 1e-6:
        difference = metric.difference(scores[0] - scores[1], reference=scores[1])
        assert difference == pytest.approx(first - second, rel=1e-6, abs=1e-6)


def test_the_score_of_a_log_loss_is_the_geometric_mean_probability() -> None:
    probabilities = 0.9, 0.4, 0.1
    loss = -sum(map(math.log, probabilities)) / 3
    assert METRICS["log_loss"].score(loss) == pytest.approx(math.prod(probabilities) ** (1 / 3))
    assert METRICS["log_loss"].score(math.inf) == 0.0 and METRICS["log_loss"].value(0.0) == math.inf


@pytest.mark.parametrize("name", METRICS)
def test_names_and_units(name: str) -> None:
    assert METRICS[name].name == name and METRICS[name].unit == UNITS[name]


@pytest.mark.parametrize("name", METRICS)
def test_the_score_of_an_epoch_is_that_of_the_metric(name: str) -> None:
    known = {"balanced_accuracy": 0.5, "macro_f1": 0.4, "auroc": 0.6}
    result = EpochResult(1, 1.0, 0.7, 0.8, 1.0, metrics=known)
    value = {**known, "accuracy": 0.8, "log_loss": 0.7}[name]
    assert result.value(name) == value
    assert result.score(name) == last_score([result], name) == METRICS[name].score(value)
    assert EpochResult(1, math.inf, 0.7, 0.8, 1.0, diverged=True, metrics=known).score(name) == 0.0
    assert EpochResult(1, 1.0, None, None, 1.0).score(name) is None
    assert last_score([], name) is None


def test_the_last_accuracy_is_the_score_of_the_default_metric() -> None:
    curve = [EpochResult(1, 1.0, 0.7, 0.8, 1.0), EpochResult(2, 1.0, 0.7, 0.6, 1.0)]
    assert last_accuracy(curve) == last_score(curve, DEFAULT_METRIC) == 0.6


def test_an_unknown_metric_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"metric 'balanced-accuracy'.*balanced_accuracy"):
        SearchConfig.from_options({"dataset": "digits", "budget": 3, "metric": "balanced-accuracy"})
