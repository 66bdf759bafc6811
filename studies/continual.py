"""Study: does DLCFT forget less than EWC, by which of its parts, and why does EWC with cross-entropy fail?

Claim (Shon et al., arXiv 2208.08112): for the first-order expansion of a network with squared error, a quadratic
penalty with the curvature of past tasks is the optimal policy, so DLCFT is more accurate than EWC with cross-entropy in
streams of tasks, most of all in class-incremental ones. Arms, in data-, task- and class-incremental streams:

- *dlcft*: the expansion around a random head, squared error, K-FAC curvature;
- *ewc*: the network itself, cross-entropy, diagonal Fisher information; *finetune* has no penalty, *l2sp* decays
  towards the pretrained weights;
- *not linearised*: dlcft without the expansion; *diagonal*: dlcft with a diagonal curvature; *no penalty*: dlcft
  without one (these three in class-incremental streams only);
- *probe*: incremental ridge regression on frozen features; *joint*: training on all images so far, the upper bound.

Three judging data sets with `mobilenet_v2(width_mult=0.35)` from ImageNet and the 66 classes of the small Omniglot set
that its source model (`conv3`) has not seen. Optimiser (AdamW), epochs, augmentation (none) and head (random, with ten
times the rate of the other layers) are the same for all arms. Every arm but *probe*, whose ridge is chosen on the first
task, searches its learning rate and one setting of its own by the average accuracy on the validation images of a stream
with an order, split and seed of its own: each of three values, and up to three beyond while the best is at an edge.
That setting is the strength of penalty or decay, or without one the multiple of the head's rate. The best then runs on
three other orders and seeds, and is tested once.

Rule, on *dlcft* minus *ewc* in points of average accuracy: *confirmed* if the mean over the data sets is at least 1
point in class-incremental streams, above -1 in the others, and the 95 % interval over all streams is above 0;
*confirmed in part* if only the mean in class-incremental streams is at least 1 point with an interval above 0 over the
data sets; else *not confirmed*. Intervals are Student's.

The reason is shown on the first task of every class-incremental stream: the trace of the Fisher information of
cross-entropy as a share of that of the curvature of squared error, which does not fall when the labels are fitted.

    python studies/continual.py run --shared ../shared      # resumable; about 3 hours on two idle cores
    python studies/continual.py report

Rows: `studies/results/continual.jsonl`; the report writes `continual.md` and `continual.svg`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from binary import interval
from equal_effort import SEARCH_SEED, Axis, Key, Row, Values, edges_line, rows_of, train_arms
from machine import machine
from omniglot_task import load_omniglot
from shards import study_parser
from study_command import run_study

import nbt
from nbt.settings import TransferSettings
from nbt.settings.continual import ContinualSettings, method_overrides
from nbt.training.continual.run import run_continual
from nbt.training.continual.scenarios import class_mask, make_stages
from nbt.training.recipe.augmentation import AugmentationPlan
from nbt.training.stage import StageContext
from nbt.training.worker.context import WorkerContext
from nbt.transfer.curvature.estimate import DiagonalCurvature, estimate_curvature

RESULTS = Path(__file__).resolve().parent / "results"
ROWS, REPORT, FIGURE = (RESULTS / f"continual.{suffix}" for suffix in ("jsonl", "md", "svg"))
BACKBONE, WEIGHTS, IMAGE_SIZE, LABELLED = "mobilenet_v2(width_mult=0.35)", "mobilenet_v2_035-imagenet.pth", 64, 480
OMNIGLOT, CLASS = "omniglot66", "class"
SCENARIOS = (CLASS, "task", "data")
# Data set -> number of tasks by scenario.
TASKS = {
    "gtsrb16": dict.fromkeys(SCENARIOS, 4),
    "food15": dict.fromkeys(SCENARIOS, 5),
    "aid18": dict.fromkeys(SCENARIOS, 6),
    OMNIGLOT: {CLASS: 6, "task": 6, "data": 3},
}
DLCFT, EWC, FINETUNE, L2SP, PROBE, JOINT = METHODS = ("dlcft", "ewc", "finetune", "l2sp", "probe", "joint")
NONLINEAR, DIAGONAL, UNPENALISED = ABLATIONS = ("not linearised", "diagonal", "no penalty")
EPOCHS, HEAD_MULTIPLE, SEEDS = 10, 10.0, (0, 1, 2)
RATE, MULTIPLE = Axis((1e-4, 3e-4, 1e-3), 3.0, 3), Axis((3.0, 10.0, 30.0), 3.0, 3)
PENALTY, DECAY = Axis((0.1, 1.0, 10.0), 10.0, 3), Axis((0.001, 0.01, 0.1), 10.0, 3)
OWN = dict.fromkeys((DLCFT, EWC, NONLINEAR, DIAGONAL), PENALTY) | {L2SP: DECAY}
# The arms of a stream are neighbours, so that every process has about the same work.
KEYS = [
    (dataset, scenario, arm)
    for dataset in TASKS
    for scenario in SCENARIOS
    for arm in (METHODS + ABLATIONS if scenario == CLASS else METHODS)
]
CURVATURE = "curvature of the first task"
Streams = Mapping[tuple[str, str], Mapping[str, float]]


def main() -> None:
    """Runs the study or writes its report."""
    args = study_parser(__doc__, ROWS, "arm")[0].parse_args()
    run_study(args, train_all, summarise, draw_figure, REPORT, FIGURE)


def train_all(args: argparse.Namespace) -> None:
    """Trains the missing runs of this process."""
    curvatures = [(dataset, CLASS, CURVATURE) for dataset in TASKS]
    train_arms(args, [*KEYS, *curvatures], axes_of, SEEDS, functools.partial(train, shared=args.shared))


def axes_of(key: Key) -> tuple[Axis, ...]:
    """Returns what an arm searches: its learning rate and its own setting, or nothing."""
    return () if key[-1] in (PROBE, CURVATURE) else (RATE, OWN.get(key[-1], MULTIPLE))


def settings_of(key: Key, values: Values) -> ContinualSettings:
    """Returns the settings of a stream for a learning rate and a value of the arm's own setting."""
    dataset, scenario, arm = key
    rate, own = values or (RATE.values[0], HEAD_MULTIPLE)
    changes = method_overrides(DLCFT if arm in ABLATIONS else arm, scenario)
    changes.update(optimizer="adamw", augmentation="none", body_lr=rate)
    changes["head_lr"] = rate * (own if axes_of(key)[1:] == (MULTIPLE,) else HEAD_MULTIPLE)
    if OWN.get(arm) is PENALTY:
        changes["penalty_strength"] = own
    elif arm == L2SP:
        changes["decay_strength"] = own
    ablation: dict[str, dict[str, Any]] = {
        NONLINEAR: {"linearized": False},
        DIAGONAL: {"curvature": "diagonal"},
        UNPENALISED: {"penalty_strength": 0.0},
    }
    changes |= ablation.get(arm, {})
    recipe = TransferSettings(epochs=EPOCHS).replace(**changes)
    return ContinualSettings(scenario=scenario, tasks=TASKS[dataset][scenario], recipe=recipe, head="random")


def train(key: Key, values: Values, seed: int, shared: Path) -> Row:
    """Trains a stream, and returns its results; that of the search is evaluated on validation images."""
    context, started = load(key[0], seed, shared), time.process_time()
    if key[-1] == CURVATURE:
        return {"val": 0.0, "traces": curvature_by_epoch(context, key, seed)}
    part = "val" if seed == SEARCH_SEED else "test"
    stream = run_continual(context.task, settings_of(key, values), seed, context=context, evaluate_on=part)
    try:
        while True:
            next(stream)
    except StopIteration as end:
        result = end.value
    return {
        "val": result.average_accuracy,
        "forgetting": result.forgetting,
        "cpu_seconds": round(time.process_time() - started, 1),
    }


@functools.lru_cache(maxsize=4)
def load(dataset: str, seed: int, shared: Path) -> WorkerContext:
    """Returns the context of a task with pretrained weights; the seed determines the split."""
    if dataset == OMNIGLOT:
        return WorkerContext(load_omniglot(shared / "data", seed), device="cpu")
    options: dict[str, Any] = {"image_size": IMAGE_SIZE, "seed": seed, "progress": False}
    options["shots"] = LABELLED // int("".join(filter(str.isdigit, dataset)))
    weights = shared / "weights" / WEIGHTS
    return WorkerContext(
        nbt.load_task(shared / "data" / dataset, backbone=BACKBONE, weights=weights, **options), device="cpu"
    )


def curvature_by_epoch(context: WorkerContext, key: Key, seed: int) -> list[list[float]]:
    """Returns the traces per image of the curvatures of cross-entropy and of squared error after every epoch."""
    stage = make_stages(context.task, CLASS, TASKS[key[0]][CLASS], seed)[0]
    split = dataclasses.replace(context.task.split, train=stage.train, val=stage.val[:0])
    recipe = settings_of((*key[:-1], FINETUNE), (RATE.values[1], HEAD_MULTIPLE)).recipe
    outputs = torch.from_numpy(class_mask(context.task.n_classes, stage.classes))
    images, traces = torch.from_numpy(stage.train).split(32), list[list[float]]()
    task = dataclasses.replace(context.task, split=split)
    for _ in nbt.fine_tune(task, recipe, seed, context=context, stage=StageContext(outputs=outputs)):
        context.model.eval()
        found = [
            cast(
                DiagonalCurvature,
                estimate_curvature(
                    "diagonal",
                    context.model,
                    ((context.load_images(part, AugmentationPlan()),) for part in images),
                    outputs=outputs,
                    vectors=vectors,
                    generator=torch.Generator().manual_seed(seed),
                ),
            )
            for vectors in ("fisher", "signs")
        ]
        totals = (float(sum(map(torch.sum, c.diagonal.values()))) for c in found)
        traces.append([total / len(stage.train) for total in totals])
    return traces


def accuracies(rows: Sequence[Row], key: Key) -> list[float]:
    """Returns the average accuracies of an arm on the test streams, in per cent."""
    return [100 * row["val"] for row in rows_of(rows, key, SEEDS)]


def streams(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, float]]:
    """Returns data set and scenario -> arm -> mean accuracy, of the streams that are complete."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for dataset, scenario in dict.fromkeys(key[:2] for key in KEYS):
        arms = {key[-1]: accuracies(rows, key) for key in KEYS if key[:2] == (dataset, scenario)}
        if all(len(values) == len(SEEDS) for values in arms.values()):
            found[dataset, scenario] = {arm: statistics.fmean(values) for arm, values in arms.items()}
    return found


def gains(found: Streams, scenario: str, arm: str = DLCFT, other: str = EWC) -> list[float]:
    """Returns the points by which an arm is above another one, per data set of a scenario."""
    return [arms[arm] - arms[other] for (_, of), arms in found.items() if of == scenario]


def verdict(found: Streams) -> str:
    """Returns the verdict by the rule of the docstring."""
    n_streams = len(TASKS) * len(SCENARIOS)
    if len(found) < n_streams:
        return f"no verdict: {len(found)} of {n_streams} streams are complete"
    means = {scenario: statistics.fmean(gains(found, scenario)) for scenario in SCENARIOS}
    if means[CLASS] < 1:
        return "not confirmed"
    everywhere = interval([gain for scenario in SCENARIOS for gain in gains(found, scenario)])
    if everywhere[1] > 0 and min(means.values()) > -1:
        return "confirmed"
    return "confirmed in part" if interval(gains(found, CLASS))[1] > 0 else "not confirmed"


def summarise(rows: Sequence[Row]) -> str:
    """Returns the report."""
    found = streams(rows)
    text = [
        "# Streams of tasks: DLCFT, its parts and other methods",
        "",
        f"{len(rows)} streams, {EPOCHS} epochs per task; average accuracy on test images in per cent, mean over "
        f"{len(SEEDS)} orders and seeds; {machine()}. Design and rule: `studies/continual.py`. Verdict: "
        f"{verdict(found)}.",
        "",
        f"| stream | {' | '.join(METHODS + ABLATIONS)} |",
        "|---" * (1 + len(METHODS + ABLATIONS)) + "|",
    ]
    for (dataset, scenario), arms in found.items():
        cells = (f"{arms[arm]:.1f}" if arm in arms else "" for arm in METHODS + ABLATIONS)
        text.append(f"| {dataset}, {scenario} | {' | '.join(cells)} |")
    text += ["", "| dlcft minus, points [95 %] | class | task | data |", "|---|---|---|---|"]
    for other in (EWC, FINETUNE, L2SP, PROBE, JOINT, *ABLATIONS):
        cells = (
            "{:+.1f} [{:+.1f}, {:+.1f}]".format(*interval(gains(found, scenario, DLCFT, other)))
            for scenario in (SCENARIOS[:1] if other in ABLATIONS else SCENARIOS)
            if sum(of == scenario for _, of in found) > 1
        )
        text.append(f"| {other} | {' | '.join(cells)} |")
    text += ["", edges_line(rows, KEYS, axes_of, ("rate", "own setting")), ""]
    for dataset in TASKS:
        traces = [np.array(row["traces"]) for row in rows_of(rows, (dataset, CLASS, CURVATURE), SEEDS)]
        if traces:
            first, last = np.mean(traces, axis=0)[[0, -1]]
            shares = np.mean(traces, axis=0)
            first, last = 100 * shares[[0, -1], 0] / shares[[0, -1], 1]
            text.append(
                f"- {dataset}: on the first task the trace of the Fisher information of cross-entropy is {first:.2g} % "
                f"of that of the curvature of squared error after the first epoch, and {last:.2g} % after the last."
            )
    return "\n".join([*text, ""])


def draw_figure(rows: Sequence[Row], path: Path) -> None:
    """Draws the average accuracies of the arms, one panel per scenario, one line per data set."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    found = streams(rows)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "continual", "font.size": 9}):
        figure = Figure(figsize=(7, 2.8), layout="constrained")
        for axes, scenario in zip(figure.subplots(1, len(SCENARIOS), sharey=True), SCENARIOS, strict=True):
            for (dataset, of), arms in found.items():
                if of == scenario:
                    axes.plot([arms[arm] for arm in METHODS], range(len(METHODS)), "o-", label=dataset, alpha=0.7)
            axes.set(title=f"{scenario}-incremental", xlabel="average accuracy, %", yticks=range(len(METHODS)))
            axes.set_yticklabels(METHODS)
        if found:
            figure.axes[0].legend(frameon=False, fontsize=7)
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
