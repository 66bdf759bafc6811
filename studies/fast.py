"""Study: does FAST learn the target faster and forget the source more slowly than a random head, and by which part?

Claim (Varno et al., arXiv 2007.01388, whose recipe `nbt.transfer.fast` reconstructs): a head of zeros, normalised
features and a stall of the backbone let a network learn the target in fewer steps and forget its source less. Arms:

- *random head*, *zero head*, *normalised features* and *stall*: the parts alone; the others differ from the first one
  by the part that they are named after;
- *FAST*: all three parts;
- *probe first*: a random head that trains alone for a long part of the steps; *low body rate*: a random head with a
  multiple of the learning rate of the other layers.

Two ImageNet backbones learn three judging data sets of 400 labelled images. Every arm searches its learning rate and
one setting of its own on a split and a seed of its own, by validation accuracy: each of three values, and up to three
or one beyond while the best is at an edge. That setting is the length of the warm-up, of the stall or of the probe, or
the multiple. The best recipe then runs on five other seeds. The source accuracy is that of the unchanged classifier on
birds and monkeys of 14 classes of ImageNet.

Rule, on *FAST* minus *random head*, Student's intervals over the six pairs of data set and backbone. *Faster*: the
geometric mean of the ratios of epochs to 80 % of the final test accuracy of *random head* is below 1 with its interval.
*Forgets less*: the difference of source accuracies after the last epoch is above 0 with its interval, and that of test
accuracies at least -1 point in the mean. *Confirmed* if both hold and no arm that has a random head has both a higher
mean test accuracy and a higher mean source accuracy than *FAST*; *confirmed in part* if one of the two holds; else
*not confirmed*.

    python studies/fast.py run --shared ../shared      # resumable; about 3 hours on two idle cores
    python studies/fast.py report

Rows: `studies/results/fast.jsonl`; the report writes `fast.md` and `fast.svg`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from binary import interval
from equal_effort import SEARCH_SEED, Axis, Key, Row, Values, edges_line, rows_of, train_arms
from imagenet_images import write_imagenet_manifest
from machine import machine
from shards import study_parser
from study_command import run_study

import nbt
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.source_accuracy import source_accuracy
from nbt.training.worker.context import WorkerContext

RESULTS = Path(__file__).resolve().parent / "results"
ROWS, REPORT, FIGURE = (RESULTS / f"fast.{suffix}" for suffix in ("jsonl", "md", "svg"))
TARGETS = ("aid18", "trash6", "pbc8")
WEIGHTS = {"mobilenet_v2": "mobilenet_v2-imagenet.pth", "squeezenet1_0": "squeezenet1_0-imagenet.pth"}
LABELLED, EPOCHS, IMAGE_SIZE = 400, 12, 96
RANDOM, ZERO, NORM, STALL, FAST, PROBE, LOW = ARMS = (
    "random head",
    "zero head",
    "normalised features",
    "stall",
    "FAST",
    "probe first",
    "low body rate",
)
RATE = Axis((0.003, 0.01, 0.03), 3.0, 3)
WARMUP, STALL_LENGTH = Axis((0.05, 0.1, 0.2), 2.0, 1), Axis((0.05, 0.1, 0.2), 2.0, 1)
OWN = {
    STALL: STALL_LENGTH,
    FAST: STALL_LENGTH,
    PROBE: Axis((0.3, 0.5, 0.7), 1.2, 1),
    LOW: Axis((3.0, 10.0, 30.0), 3.0, 1),
}
SEEDS = (0, 1, 2, 3, 4)
LEVELS, JUDGED_LEVEL = (0.5, 0.8, 0.95), 0.8
# The arms of a data set and backbone are neighbours, so that every process has about the same work.
KEYS = [(target, backbone, arm) for target in TARGETS for backbone in WEIGHTS for arm in ARMS]


def main() -> None:
    """Runs the study or writes its report."""
    args = study_parser(__doc__, ROWS, "arm")[0].parse_args()
    run_study(args, train_all, summarise, draw_figure, REPORT, FIGURE)


def train_all(args: argparse.Namespace) -> None:
    """Trains the missing runs of this process."""
    train_arms(args, KEYS, axes_of, SEEDS, functools.partial(train, shared=args.shared))


def axes_of(key: Key) -> tuple[Axis, Axis]:
    """Returns what an arm searches: its learning rate and its own setting."""
    return RATE, OWN.get(key[-1], WARMUP)


def settings_of(arm: str, values: Values) -> TransferSettings:
    """Returns the recipe of an arm for a learning rate and a value of its own setting."""
    rate, own = values
    plain = TransferSettings(epochs=EPOCHS, head_lr=rate, body_lr=rate)
    changes: dict[str, dict[str, Any]] = {
        RANDOM: {"warmup": own},
        ZERO: {"warmup": own, "head_scale": 0.0},
        NORM: {"warmup": own, "feature_norm": "batch"},
        STALL: {"stall": own},
        FAST: {"stall": own, "head_scale": 0.0, "feature_norm": "batch"},
        PROBE: {"stall": own},
        LOW: {"body_lr": rate / own},
    }
    return plain.replace(**changes[arm])


def train(key: Key, values: Values, seed: int, shared: Path) -> Row:
    """Trains one run, and returns its results; accuracies after a loss that is not finite count as 0."""
    target, backbone, arm = key
    task, context = load(target, backbone, shared)
    task, started, curve, source = task.with_split_seed(seed), time.process_time(), [], []
    for epoch in nbt.fine_tune(task, settings_of(arm, values), seed, context=context):
        curve.append(epoch)
        if seed != SEARCH_SEED or epoch.epoch == EPOCHS:
            source.append(0.0 if epoch.diverged else source_accuracy(context.model, task))
    test = [0.0 if epoch.diverged else epoch.watched_accuracy or 0.0 for epoch in curve]
    return {
        "val": 0.0 if curve[-1].diverged else curve[-1].val_accuracy,
        "test": test + [0.0] * (EPOCHS - len(test)),
        "source": source if curve[-1].diverged is False else [0.0],
        "cpu_seconds": round(time.process_time() - started, 1),
    }


@functools.cache
def load(target: str, backbone: str, shared: Path) -> tuple[Task, WorkerContext]:
    """Returns a task with images of the source, whose test images are evaluated after every epoch, and its context."""
    path = shared / "data" / target
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "source.csv"
        write_imagenet_manifest(manifest, shared)
        options: dict[str, Any] = {"image_size": IMAGE_SIZE, "source_data": manifest, "progress": False}
        options["shots"] = LABELLED // len(nbt.load_task(path, weights="none", progress=False).class_names)
        task = nbt.load_task(path, backbone=backbone, weights=shared / "weights" / WEIGHTS[backbone], **options)
    task = dataclasses.replace(task, watched=task.split.test)
    return task, WorkerContext(task, device="cpu")


class Results:
    """Results of the seeds of all arms on one data set and backbone.

    Args:
        rows: All rows.
        pair: Target and backbone.
    """

    def __init__(self, rows: Sequence[Row], pair: tuple[str, str]) -> None:
        found = {arm: rows_of(rows, (*pair, arm), SEEDS) for arm in ARMS}
        self.pair, self.is_complete = pair, all(len(of_arm) == len(SEEDS) for of_arm in found.values())
        self.curves = {arm: 100 * np.array([row["test"] for row in of_arm]) for arm, of_arm in found.items()}
        self.source = {arm: 100 * np.array([row["source"][-1] for row in of_arm]) for arm, of_arm in found.items()}

    def test(self, arm: str) -> float:
        """Returns the mean test accuracy after the last epoch."""
        return float(self.curves[arm][:, -1].mean())

    def forgetting(self, arm: str) -> float:
        """Returns the mean source accuracy after the last epoch."""
        return float(self.source[arm].mean())

    def ratio(self, arm: str, level: float) -> float:
        """Returns the ratio of an arm and *random head* in epochs to a share of the final accuracy of the latter."""
        goal = level * self.test(RANDOM)
        arms = ([epochs_to(curve, goal) for curve in self.curves[name]] for name in (arm, RANDOM))
        return math.exp(statistics.fmean(map(math.log, next(arms))) - statistics.fmean(map(math.log, next(arms))))


def epochs_to(curve: Sequence[float], goal: float) -> float:
    """Returns the epochs to an accuracy, linear between epochs from 0 before the first; at most all epochs."""
    before = 0.0
    for epoch, accuracy in enumerate(curve):
        if accuracy >= goal:
            return epoch + (goal - before) / (accuracy - before)
        before = accuracy
    return float(len(curve))


def results(rows: Sequence[Row]) -> list[Results]:
    """Returns the results of all pairs of target and backbone that are complete."""
    found = (Results(rows, (target, backbone)) for target in TARGETS for backbone in WEIGHTS)
    return [result for result in found if result.is_complete]


def differences(found: Sequence[Results], arm: str) -> tuple[list[float], list[float]]:
    """Returns, per pair, test and source accuracy of an arm minus those of *random head*, in points."""
    return (
        [result.test(arm) - result.test(RANDOM) for result in found],
        [result.forgetting(arm) - result.forgetting(RANDOM) for result in found],
    )


def speed(found: Sequence[Results], arm: str, level: float) -> tuple[float, float, float]:
    """Returns the geometric mean over the pairs of the ratio of epochs to a level, and its interval."""
    mean, low, high = interval([math.log(result.ratio(arm, level)) for result in found])
    return math.exp(mean), math.exp(low), math.exp(high)


def verdict(found: Sequence[Results]) -> str:
    """Returns the verdict by the rule of the docstring."""
    if len(found) < len(TARGETS) * len(WEIGHTS):
        return f"no verdict: {len(found)} of {len(TARGETS) * len(WEIGHTS)} pairs of data set and backbone are complete"
    test, source = differences(found, FAST)
    claims = [speed(found, FAST, JUDGED_LEVEL)[2] < 1, interval(source)[1] > 0 and statistics.fmean(test) >= -1]
    means = {arm: [statistics.fmean(values) for values in differences(found, arm)] for arm in ARMS}
    is_beaten = any(np.greater(means[arm], means[FAST]).all() for arm in ARMS if arm not in (ZERO, FAST))
    return "confirmed" if all(claims) and not is_beaten else "confirmed in part" if any(claims) else "not confirmed"


def summarise(rows: Sequence[Row]) -> str:
    """Returns the report."""
    found = results(rows)
    text = [
        "# FAST and its parts",
        "",
        f"{len(rows)} runs of {EPOCHS} epochs at {IMAGE_SIZE} px; accuracies in per cent after the last epoch, means "
        f"over {len(SEEDS)} seeds; {machine()}. Design and rule: `studies/fast.py`. Verdict: {verdict(found)}.",
        "",
    ]
    if len(found) < 2:
        return "\n".join(text)
    levels = "".join(f" epochs to {100 * level:.0f} %, ratio |" for level in LEVELS)
    text += [f"| arm, against the random head [95 %] | test | source |{levels}", "|---" * (3 + len(LEVELS)) + "|"]
    for arm in ARMS[1:]:
        cells = [f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" for mean, low, high in map(interval, differences(found, arm))]
        ratios = (speed(found, arm, level) for level in LEVELS)
        cells += [f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in ratios]
        text.append(f"| {arm} | {' | '.join(cells)} |")
    text += ["", "| test / source accuracy | " + " | ".join(ARMS) + " |", "|---" * (1 + len(ARMS)) + "|"]
    for result in found:
        cells = [f"{result.test(arm):.1f} / {result.forgetting(arm):.1f}" for arm in ARMS]
        text.append(f"| {', '.join(result.pair)} | {' | '.join(cells)} |")
    return "\n".join([*text, "", edges_line(rows, KEYS, axes_of, ("rate", "own setting")), ""])


def draw_figure(rows: Sequence[Row], path: Path) -> None:
    """Draws test accuracy by epoch, and test against source accuracy: the seeds' means and the single search runs."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    found = results(rows)
    if not found:
        return
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fast", "font.size": 9}):
        figure = Figure(figsize=(7, 3.2), layout="constrained")
        by_epoch, front = figure.subplots(1, 2)
        for arm in ARMS:
            means = np.mean([result.curves[arm].mean(axis=0) for result in found], axis=0)
            (line,) = by_epoch.plot(range(1, EPOCHS + 1), means, label=arm)
            searches = [row for result in found for row in rows_of(rows, (*result.pair, arm), [SEARCH_SEED])]
            front.scatter(*_points(searches), s=4, color=line.get_color(), alpha=0.3)
            front.scatter(*np.mean([(r.forgetting(arm), r.test(arm)) for r in found], axis=0), color=line.get_color())
        by_epoch.set(xlabel="epoch", ylabel="test accuracy, %")
        front.set(xlabel="source accuracy after the last epoch, %")
        by_epoch.legend(frameon=False, fontsize=7)
        figure.savefig(path, metadata={"Date": None})


def _points(rows: Sequence[Row]) -> np.ndarray:
    """Returns source and test accuracies of single runs, (2, n)."""
    return 100 * np.array([(row["source"][-1], row["test"][-1]) for row in rows]).reshape(-1, 2).T


if __name__ == "__main__":
    main()
