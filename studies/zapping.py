"""Study: does zapping during pretraining give features that transfer better and faster?

Claim (Frati, Traft, Clune and Cheney, arXiv 2310.07996): pretraining with resets of the last layer gives features that
adapt faster and transfer better, in standard fine-tuning and in continual learning, near the quality of meta-learning.
Source models (`conv3(width=32)`; published 256) are trained on 50 classes of the small Omniglot set by i.i.d. training,
ASB and meta-ASB, each with and without zaps, and transferred to its 66 classes of other alphabets: *continual* takes
one step per image, class after class, *standard* 5 epochs of batches of 32, each at its best of eight learning rates of
Adam, swept on draws of their own.

Every arm searches the length of its pretraining and its learning rate by the mean accuracy of both protocols on 20
held-out classes of the source alphabets, with a seed of its own: each of three values, and one beyond where the best is
at an edge. So a source without zaps stops before it overfits. The best then runs with three other seeds.

Two more comparisons have no search: ASB with zaps against meta-ASB without, at 1000 episodes (equal gradient steps),
and with 1.67 times as many episodes for ASB (equal cost by `bench_zapping.py`).

Rule, on zap minus no zap in points of test accuracy: *confirmed* if the mean over the seeds is above 0 for every scheme
and protocol, and the 95 % interval over schemes and seeds is above 0 for both protocols; *confirmed in part* if that
interval is above 0 for one of them; else *not confirmed*. Intervals are Student's. *Faster* is reported beside it:
the ratio of epochs of the standard protocol to 80 % of the final accuracy of the source without zaps.

    python studies/zapping.py run --shared ../shared      # resumable; about 1 hour on two idle cores
    python studies/zapping.py report

Rows: `studies/results/zapping.jsonl`; the report writes `zapping.md` and `zapping.svg`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from binary import interval
from equal_effort import SEARCH_SEED, Axis, Key, Row, Values, edges_line, rows_of, searched, train_arms
from fast import epochs_to
from machine import machine
from shards import study_parser
from study_command import run_study

import nbt
from nbt.data.resolve import resolve
from nbt.models.backbone_spec import parse_backbone
from nbt.settings.class_stream import PROTOCOLS, ClassStreamSettings
from nbt.settings.pretrain import PretrainSettings, default_pretrain_settings
from nbt.task.task import Task
from nbt.training.pretrain.class_stream import run_class_stream
from nbt.training.pretrain.scheme_sources import pretrain
from nbt.training.pretrain.source_images import SourceImages, load_source_images

RESULTS = Path(__file__).resolve().parent / "results"
ROWS, REPORT, FIGURE = (RESULTS / f"zapping.{suffix}" for suffix in ("jsonl", "md", "svg"))
BACKBONE, IMAGE_SIZE = "conv3(width=32)", 28
# Classes 0 to 49 train the sources, 50 to 69 choose their length and rate, 70 to 135 judge.
SOURCE_CLASSES, KNOWN_CLASSES = 50, 70
SCHEMES = ("iid", "asb", "meta-asb")
ZAP, PLAIN = "zap", "no zap"
EQUAL_STEPS, EQUAL_COST, META = ("asb", ZAP, "1000"), ("asb", ZAP, "1670"), ("meta-asb", PLAIN, "1000")
ARMS: list[Key] = [(scheme, zapped) for scheme in SCHEMES for zapped in (PLAIN, ZAP)]
KEYS: list[Key] = [*ARMS, EQUAL_STEPS, EQUAL_COST, META]
EPOCHS, EPISODES = Axis((8, 16, 32), 2.0, 1), Axis((250, 500, 1000), 2.0, 1)
RATE = Axis((3e-4, 1e-3, 3e-3), 3.0, 1)
SEEDS = (0, 1, 2)
CONTINUAL, STANDARD = PROTOCOLS
TRANSFER = {"classes": 40, "draws": 10, "epochs": 5, "skip_classes": KNOWN_CLASSES}
HELD_OUT = {"classes": KNOWN_CLASSES - SOURCE_CLASSES, "draws": 4, "epochs": 5, "skip_classes": SOURCE_CLASSES}
LEVEL = 0.8


def main() -> None:
    """Runs the study or writes its report."""
    args = study_parser(__doc__, ROWS, "arm")[0].parse_args()
    run_study(args, train_all, summarise, draw_figure, REPORT, FIGURE)


def train_all(args: argparse.Namespace) -> None:
    """Trains the missing runs of this process."""
    train_arms(args, KEYS, axes_of, SEEDS, functools.partial(train, shared=args.shared))


def axes_of(key: Key) -> tuple[Axis, ...]:
    """Returns what an arm searches: the length of its pretraining and its learning rate, or nothing."""
    return (EPOCHS if key[0] == "iid" else EPISODES, RATE) if key in ARMS else ()


def settings_of(key: Key, values: Values) -> PretrainSettings:
    """Returns the settings of the pretraining of an arm for a length and a learning rate."""
    scheme, zapped = key[:2]
    length, rate = values or (float(key[-1]), RATE.values[1])
    changes: dict[str, Any] = {"zap_period": int(zapped == ZAP), "lr": rate}
    changes |= {"epochs": round(length), "batch_size": 32} if scheme == "iid" else {"episodes": round(length)}
    # The published inner rate of meta-ASB, .1, hardly lowers the loss in so few episodes.
    changes |= {"inner_lr": 0.01} if scheme == "meta-asb" else {}
    return default_pretrain_settings(scheme, "conv3", **changes)


def train(key: Key, values: Values, seed: int, shared: Path) -> Row:
    """Trains a source, or loads it from the cache, transfers it, and returns the accuracies."""
    settings, started = settings_of(key, values), time.process_time()
    source = pretrain(source_images(shared), parse_backbone(BACKBONE), settings, seed)
    facts = {"steps": settings.gradient_steps(len(source_images(shared))), "source": source.accuracy}
    is_search = seed == SEARCH_SEED
    task = dataclasses.replace(target(KNOWN_CLASSES if is_search else None, shared), w0=source.weights.w0)
    sizes: dict[str, Any] = HELD_OUT if is_search else TRANSFER
    results = {p: run_class_stream(task, ClassStreamSettings(protocol=p, **sizes), seed) for p in PROTOCOLS}
    accuracies = {protocol: result.accuracy for protocol, result in results.items()}
    row: Row = {**facts, **accuracies, "val": statistics.fmean(accuracies.values())}
    if not is_search:
        row["by_epoch"] = [*accuracy_by_epoch(task, results[STANDARD].rate, seed), accuracies[STANDARD]]
    return {**row, "cpu_seconds": round(time.process_time() - started, 1)}


def accuracy_by_epoch(task: Task, rate: float, seed: int) -> list[float]:
    """Returns the accuracies of the standard protocol at a rate after every epoch but the last.

    The rate is constant, so that a run of fewer epochs is the beginning of a longer one.
    """
    sizes = [TRANSFER | {"epochs": epochs, "rates": (rate,)} for epochs in range(1, TRANSFER["epochs"])]
    settings = [ClassStreamSettings(protocol=STANDARD, **size) for size in sizes]  # type: ignore[arg-type]
    return [run_class_stream(task, of_length, seed).accuracy for of_length in settings]


@functools.cache
def source_images(shared: Path) -> SourceImages:
    """Returns the images on which the sources are trained."""
    return load_source_images(resolve("omniglot-small", str(shared / "data")), IMAGE_SIZE, classes=SOURCE_CLASSES)


@functools.cache
def target(classes: int | None, shared: Path) -> Task:
    """Returns the task of the first classes of the data set, or of all, with random weights."""
    options: dict[str, Any] = {"backbone": BACKBONE, "weights": "none", "image_size": IMAGE_SIZE, "classes": classes}
    return nbt.load_task("omniglot-small", data_dir=shared / "data", **options)


def accuracies(rows: Sequence[Row], key: Key, protocol: str) -> dict[int, float]:
    """Returns seed -> test accuracy of an arm in per cent."""
    return {row["seed"]: 100 * row[protocol] for row in rows_of(rows, key, SEEDS)}


def gains(rows: Sequence[Row], arm: Key, other: Key, protocol: str) -> list[float]:
    """Returns the points by which an arm is above another one, per seed that both have."""
    ours, theirs = (accuracies(rows, key, protocol) for key in (arm, other))
    return [ours[seed] - theirs[seed] for seed in SEEDS if seed in ours and seed in theirs]


def zap_gains(rows: Sequence[Row], scheme: str, protocol: str) -> list[float]:
    """Returns the points by which zapping is above no zapping, per seed."""
    return gains(rows, (scheme, ZAP), (scheme, PLAIN), protocol)


def verdict(rows: Sequence[Row]) -> str:
    """Returns the verdict by the rule of the docstring."""
    found = {(scheme, p): zap_gains(rows, scheme, p) for scheme in SCHEMES for p in PROTOCOLS}
    missing = sum(len(values) < len(SEEDS) for values in found.values())
    if missing:
        return f"no verdict: {missing} of {len(found)} comparisons are incomplete"
    is_clear = [interval([gain for s in SCHEMES for gain in found[s, p]])[1] > 0 for p in PROTOCOLS]
    if all(is_clear) and all(statistics.fmean(values) > 0 for values in found.values()):
        return "confirmed"
    return "confirmed in part" if any(is_clear) else "not confirmed"


def speed(rows: Sequence[Row], scheme: str) -> float:
    """Returns the ratio of epochs of the standard protocol to 80 % of the final accuracy without zaps."""
    by_arm = {z: np.array([row["by_epoch"] for row in rows_of(rows, (scheme, z), SEEDS)]) for z in (ZAP, PLAIN)}
    goal = LEVEL * by_arm[PLAIN][:, -1].mean()
    logs = {z: statistics.fmean(math.log(epochs_to(curve, goal)) for curve in curves) for z, curves in by_arm.items()}
    return math.exp(logs[ZAP] - logs[PLAIN])


def summarise(rows: Sequence[Row]) -> str:
    """Returns the report."""
    text = [
        "# Zapping during pretraining",
        "",
        f"{len(rows)} sources; test accuracy in per cent, mean over {len(SEEDS)} seeds of pretraining with "
        f"{TRANSFER['draws']} draws each; {machine()}. Design and rule: `studies/zapping.py`. Verdict: "
        f"{verdict(rows)}.",
        "",
        "| pretraining | length | rate | steps | accuracy on the source | continual | standard |",
        "|---" * 7 + "|",
    ]
    for key in KEYS:
        found = rows_of(rows, key, SEEDS)
        if found:
            length, rate = searched(rows, key, axes_of(key)).values or (float(key[-1]), RATE.values[1])
            source, *ends = (100 * statistics.fmean(row[name] for row in found) for name in ("source", *PROTOCOLS))
            cells = f"{length:g} | {rate:g} | {found[0]['steps']} | {source:.0f} | {ends[0]:.1f} | {ends[1]:.1f}"
            text.append(f"| {', '.join(key[:2])} | {cells} |")
    text += ["", "| points [95 % over seeds] | continual | standard | epochs, ratio |", "|---|---|---|---|"]
    comparisons: list[tuple[str, Key, Key]] = [
        (f"{scheme}: zap minus no zap", (scheme, ZAP), (scheme, PLAIN)) for scheme in SCHEMES
    ]
    comparisons += [("asb with zaps minus meta-asb, equal steps", EQUAL_STEPS, META)]
    comparisons += [("asb with zaps minus meta-asb, equal cost", EQUAL_COST, META)]
    for title, arm, other in comparisons:
        values = [gains(rows, arm, other, protocol) for protocol in PROTOCOLS]
        if min(map(len, values)) > 1:
            cells = " | ".join("{:+.1f} [{:+.1f}, {:+.1f}]".format(*interval(of)) for of in values)
            text.append(f"| {title} | {cells} | {f'{speed(rows, arm[0]):.2f}' if arm in ARMS else ''} |")
    for protocol in PROTOCOLS:
        together = [gain for scheme in SCHEMES for gain in zap_gains(rows, scheme, protocol)]
        if len(together) > 1:
            mean, low, high = interval(together)
            text += ["", f"All schemes, {protocol}: {mean:+.1f} points [{low:+.1f}, {high:+.1f}]."]
    return "\n".join([*text, "", edges_line(rows, ARMS, axes_of, ("length", "rate")), ""])


def draw_figure(rows: Sequence[Row], path: Path) -> None:
    """Draws the accuracy of the standard protocol by epoch, one panel per scheme."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "zapping", "font.size": 9}):
        figure = Figure(figsize=(7, 2.6), layout="constrained")
        for axes, scheme in zip(figure.subplots(1, len(SCHEMES), sharey=True), SCHEMES, strict=True):
            for zapped in (PLAIN, ZAP):
                curves = [row["by_epoch"] for row in rows_of(rows, (scheme, zapped), SEEDS)]
                if curves:
                    axes.plot(range(1, len(curves[0]) + 1), 100 * np.mean(curves, axis=0), "o-", label=zapped)
            axes.set(title=scheme, xlabel="epoch")
        figure.axes[0].set_ylabel("test accuracy, standard, %")
        if figure.axes[0].lines:
            figure.axes[0].legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
