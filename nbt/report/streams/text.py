"""Sentences of the report of streams: average accuracy, forgetting, and the comparison of methods."""

from __future__ import annotations

import math

from nbt.report.formatting import DASH, format_interval, percent, pluralise, points, points_interval
from nbt.report.streams.comparison import Comparison, MethodStreams
from nbt.tuning.intervals import Interval

SCENARIO_DESCRIPTIONS = {
    "data": "every task has new images of the same classes",
    "task": "every task has new classes, and the task of an image is known at test time",
    "class": "every task has new classes, and the task of an image is unknown at test time",
}

_METHOD_DESCRIPTIONS = {
    "dlcft": "dlcft (linearised continual fine-tuning) trains the network's first-order expansion with a quadratic "
    "penalty by the curvature of past tasks",
    "ewc": "ewc (elastic weight consolidation) trains the network with a penalty by its diagonal Fisher information",
    "finetune": "finetune trains on one task after another without a measure against forgetting",
    "l2sp": "l2sp penalises the distance to the weights that the training starts from",
    "zap": "zap resets the head every few epochs",
    "probe": "probe is a ridge regression on frozen features, whose result does not depend on the order of the tasks",
    "joint": "joint trains on the images of all tasks so far and serves as a reference",
}


def bytes_text(count: int) -> str:
    """Returns a size in memory, e.g. "3.2 MiB", or "none" for 0."""
    if not count:
        return "none"
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = min(int(math.log2(count) / 10), len(units) - 1)
    return f"{count} bytes" if power == 0 else f"{count / 1024**power:.1f} {units[power]}"


def headline(comparison: Comparison) -> str:
    """Returns the main result in one sentence."""
    tasks, first = comparison.config.settings.tasks, comparison.methods[0]
    if len(comparison.methods) == 1:
        return (
            f"After {tasks} tasks, {first.method} has {percent(first.average_accuracy.mean)} average accuracy"
            f"{_accuracy_with_interval(first)}; {forgetting_clause(first)}."
        )
    best, *others = sorted(comparison.methods, key=lambda runs: -runs.average_accuracy.mean)
    listed = [
        f"{best.method} has {percent(best.average_accuracy.mean)} average accuracy{_accuracy_with_interval(best)}"
    ]
    listed += [f"{runs.method} {percent(runs.average_accuracy.mean)}" for runs in others]
    return f"After {tasks} tasks, {', '.join(listed)}."


def _accuracy_with_interval(runs: MethodStreams) -> str:
    interval = runs.average_accuracy
    if interval.low is None:
        return ""
    return f" (95 % interval {format_interval(interval)}{interval_basis(interval, len(runs.streams))})"


def interval_basis(interval: Interval, streams: int) -> str:
    """Returns the sample of an interval: images of one stream, or streams."""
    if streams == 1:
        return f", {pluralise(interval.n, 'image')} of one stream"
    return f", {pluralise(streams, 'stream')}"


def forgetting_clause(runs: MethodStreams) -> str:
    """Returns a clause on the forgetting of a method."""
    mean = runs.forgetting.mean
    if mean <= 0:
        return "there is no forgetting" if mean == 0 else "the accuracy on past tasks improved"
    return f"the accuracy on past tasks is on average {points(mean, signed=False)} points below its best value"


def explanation(comparison: Comparison) -> list[str]:
    """Returns the sentences below the headline: the scenario, the methods, and paired differences."""
    settings, seeds = comparison.config.settings, comparison.seeds
    sentences = [f"The stream is {settings.scenario}-incremental: {SCENARIO_DESCRIPTIONS[settings.scenario]}."]
    if len(seeds) > 1:
        sentences.append(
            f"Every method was trained on the same {len(seeds)} streams, each with its own order and seed; "
            "intervals are Student's t intervals over streams."
        )
    else:
        sentences.append("One stream does not show the effect of the order of tasks; --seeds N runs several streams.")
    sentences.append(
        ("Method: " if len(comparison.methods) == 1 else "Methods: ")
        + "; ".join(_METHOD_DESCRIPTIONS[runs.method] for runs in comparison.methods)
        + "."
    )
    sentences += [_comparison_sentence(comparison, runs) for runs in comparison.methods[1:] if len(seeds) > 1]
    return sentences


def _comparison_sentence(comparison: Comparison, runs: MethodStreams) -> str:
    """Returns a sentence on a paired difference, "better" or "worse" only if the interval is on one side of zero."""
    first, versus = comparison.methods[0], comparison.versus(runs)
    assert versus is not None and versus.low is not None and versus.high is not None
    bounds = f"95 % interval {points_interval(versus)}, paired"
    if versus.low > 0 or versus.high < 0:
        word = "better" if versus.low > 0 else "worse"
        return f"{runs.method} is {points(versus.mean, signed=False)} points {word} than {first.method} ({bounds})."
    return f"{runs.method} cannot be distinguished from {first.method} ({points(versus.mean)} points, {bounds})."


def notes(comparison: Comparison) -> list[str]:
    """Returns warnings for the reader."""
    warnings = [
        f"{runs.method} diverged: the loss became infinite or NaN, and the accuracies are 0 from that task on; "
        "try a lower --lr."
        for runs in comparison.methods
        if runs.diverged
    ]
    if comparison.config.settings.scenario != "class" and any(runs.method == "joint" for runs in comparison.methods):
        warnings.append("The matrix of joint results from one training per task on all images so far.")
    return warnings


def difference_text(interval: Interval | None, *, signed: bool = True) -> str:
    """Returns a difference in points, or a dash."""
    return DASH if interval is None else points(interval.mean, signed=signed or interval.mean < 0)
