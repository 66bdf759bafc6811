"""Words on streams: what was learnt, how well, what was forgotten, and how methods compare."""

from __future__ import annotations

import math

from nbt.report.formatting import DASH, format_interval, percent, pluralise, points, points_interval
from nbt.report.streams.comparison import Comparison, MethodStreams
from nbt.tuning.intervals import Interval

SCENARIO_DESCRIPTIONS = {
    "data": "other images of the same classes in every task",
    "task": "other classes in every task, and at test time it is known of which task an image is",
    "class": "other classes in every task, and at test time nothing is known of them",
}

_METHOD_DESCRIPTIONS = {
    "dlcft": "dlcft (linearised continual fine-tuning) trains the network's first-order expansion with a quadratic "
    "penalty by the curvature of past tasks",
    "ewc": "ewc (elastic weight consolidation) trains the network with a penalty by its diagonal Fisher information",
    "finetune": "finetune goes on from task to task and does nothing against forgetting",
    "l2sp": "l2sp pulls the weights to the pretrained ones",
    "zap": "zap resets the head every few epochs",
    "probe": "probe is one ridge regression on frozen features, which no order of the tasks changes",
    "joint": "joint trains anew on the images of all tasks so far, so it is what the others are measured against",
}


def bytes_text(count: int) -> str:
    """Returns a size in memory as "3.2 MiB"; 0 as "none"."""
    if not count:
        return "none"
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = min(int(math.log2(count) / 10), len(units) - 1)
    return f"{count} bytes" if power == 0 else f"{count / 1024**power:.1f} {units[power]}"


def headline(comparison: Comparison) -> str:
    """Returns the sentence a reader who reads one sentence should read."""
    tasks, first = comparison.config.settings.tasks, comparison.methods[0]
    if len(comparison.methods) == 1:
        return (
            f"After {tasks} tasks {first.method} has {percent(first.average_accuracy.mean)} average accuracy"
            f"{_accuracy_with_interval(first)}; {forgotten(first)}."
        )
    best, *others = sorted(comparison.methods, key=lambda runs: -runs.average_accuracy.mean)
    listed = [
        f"{best.method} has {percent(best.average_accuracy.mean)} average accuracy{_accuracy_with_interval(best)}"
    ]
    listed += [f"{runs.method} {percent(runs.average_accuracy.mean)}" for runs in others]
    return f"After {tasks} tasks {', '.join(listed)}."


def _accuracy_with_interval(runs: MethodStreams) -> str:
    interval = runs.average_accuracy
    if interval.low is None:
        return ""
    return f" (95 % interval {format_interval(interval)}{over(interval, len(runs.streams))})"


def over(interval: Interval, streams: int) -> str:
    """Returns over what an interval is: images of one stream, or streams."""
    if streams == 1:
        return f", {pluralise(interval.n, 'image')} of one stream"
    return f", {pluralise(streams, 'stream')}"


def forgotten(runs: MethodStreams) -> str:
    """Returns how much a method forgot, as half a sentence."""
    mean = runs.forgetting.mean
    if mean <= 0:
        return "it forgot nothing: past tasks are as good as ever" if mean == 0 else "past tasks became better still"
    return f"it forgot {points(mean, signed=False)} points of what it knew of a past task at its best"


def explanation(comparison: Comparison) -> list[str]:
    """Returns the sentences below the headline: the scenario, the methods, and paired differences."""
    settings, seeds = comparison.config.settings, comparison.seeds
    sentences = [f"The stream is {settings.scenario}-incremental: {SCENARIO_DESCRIPTIONS[settings.scenario]}."]
    if len(seeds) > 1:
        sentences.append(
            f"Every method learnt the same {len(seeds)} streams, each with its own order and seed; "
            "intervals are Student's, over streams."
        )
    else:
        sentences.append("One stream says nothing of other orders; --seeds N runs several.")
    sentences.append(
        ("The method: " if len(comparison.methods) == 1 else "The methods: ")
        + "; ".join(_METHOD_DESCRIPTIONS[runs.method] for runs in comparison.methods)
        + "."
    )
    sentences += [_comparison_sentence(comparison, runs) for runs in comparison.methods[1:] if len(seeds) > 1]
    return sentences


def _comparison_sentence(comparison: Comparison, runs: MethodStreams) -> str:
    """Returns a sentence on a paired difference; it says better or worse only where the interval is on one side."""
    first, versus = comparison.methods[0], comparison.versus(runs)
    assert versus is not None and versus.low is not None and versus.high is not None
    bounds = f"95 % interval {points_interval(versus)}, paired"
    if versus.low > 0 or versus.high < 0:
        word = "better" if versus.low > 0 else "worse"
        return f"{runs.method} is {points(versus.mean, signed=False)} points {word} than {first.method} ({bounds})."
    return f"{runs.method} cannot be told apart from {first.method} ({points(versus.mean)} points, {bounds})."


def notes(comparison: Comparison) -> list[str]:
    """Returns what a reader must not miss."""
    found = [
        f"{runs.method} diverged: its loss left the finite numbers, and its accuracies are 0 from then on; "
        "a lower --lr is the first remedy."
        for runs in comparison.methods
        if runs.diverged
    ]
    if comparison.config.settings.scenario != "class" and any(runs.method == "joint" for runs in comparison.methods):
        found.append("The matrix of joint is of one training a task, on all images so far.")
    return found


def difference_text(interval: Interval | None, *, signed: bool = True) -> str:
    """Returns a difference in points, a dash where there is none."""
    return DASH if interval is None else points(interval.mean, signed=signed or interval.mean < 0)
