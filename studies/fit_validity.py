"""Study: do the fit measures predict the accuracy after fine-tuning?

Fine-tunes real backbones on real images and computes, for every measure of `nbt fit`, the weighted Kendall tau between
the measure and the fine-tuned test accuracy

- across *backbones* for one target: ImageNet weights and random initialisations of the same architectures;
- across *transfer depths* for one backbone: the number of units, counted from the input, that are pretrained.

The tables include the trivial baselines: model size, the share of units that are pretrained (for backbones: whether
they are pretrained), and the ridge probe of the last unit. Targets are small: 64 px, 15 images per class of CUB-50.
Every accuracy is the mean over the seeds, for the recipe with the best validation accuracy: SGD with a learning rate of
.0003, .003 or .03, and AdamW for squeezenet, which has no BatchNorm and does not train with SGD at these rates.

    python studies/fit_validity.py run --shared ../shared        # resumable; 1 to 2 hours on one core
    python studies/fit_validity.py run --shared ../shared      # resumable; one process per core
    python studies/fit_validity.py profile --shared ../shared    # measures the same starting points; minutes
    python studies/fit_validity.py report                        # writes studies/results/fit_validity.{json,md}

Runs and profiles are stored in `studies/results/fit_validity_{runs,profiles}*.jsonl`, one line per starting point.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import platform
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from shards import add_shard_option, start_shards

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1)
# AdamW is for networks without BatchNorm, whose features are not scaled and which SGD does not train at these rates.
RECIPES: dict[str, dict[str, Any]] = {
    "sgd .0003": {"body_lr": 0.0003, "head_lr": 0.003},
    "sgd .003": {"body_lr": 0.003, "head_lr": 0.003},
    "sgd .03": {"body_lr": 0.03, "head_lr": 0.03},
    "adamw .0003": {"body_lr": 0.0003, "head_lr": 0.001, "optimizer": "adamw"},
}
WITHOUT_NORM = ("squeezenet1_0",)
EPOCHS = 8
SMALL = "mobilenet_v2(width_mult=0.35)"
WEIGHTS = {
    SMALL: "weights/mobilenet_v2_035-imagenet.pth",
    "mobilenet_v2": "weights/mobilenet_v2-imagenet.pth",
    "squeezenet1_0": "weights/squeezenet1_0-imagenet.pth",
}
TARGETS: dict[str, dict[str, Any]] = {
    "digits": {"dataset": "digits"},
    "sketch7": {"dataset": "data/sketch7", "image_size": 64},
    "dtd10": {"dataset": "data/dtd10", "image_size": 64},
    "cub50": {"dataset": "cub", "data_dir": "data", "shots": 15, "image_size": 64},
}
UNITS = {"conv3": 3, SMALL: 19, "squeezenet1_0": 9, "mobilenet_v2": 19}
DEPTHS = {SMALL: 7, "squeezenet1_0": 5, "conv3": 4}
BOOTSTRAP = 2000
# Higher is better for all other measures.
LOWER_IS_BETTER = ("mean_shift", "variance_shift", "dead_channels")
FACTS = (
    *("classes", "train_images", "images_per_class", "smallest_class", "imbalance", "samples"),
    *("image_size", "units", "feature_dim"),
)
TRIVIAL = ("pretrained_share", "parameters", "ridge_accuracy")


@dataclasses.dataclass(frozen=True)
class Item:
    """One starting point of fine-tuning: a backbone whose first `kept` units are pretrained.

    Attributes:
        target: Key of `TARGETS`.
        backbone: Key of `UNITS`.
        kept: Number of units, counted from the input, that keep pretrained weights.
    """

    target: str
    backbone: str
    kept: int

    def groups(self) -> Iterator[tuple[str, str, str]]:
        """Yields the groups in which it is ranked: kind, target, backbone."""
        if self.kept in (0, UNITS[self.backbone]):
            yield "backbone", self.target, "all"
        if self.kept in depths(self.target, self.backbone):
            yield "depth", self.target, self.backbone


def items() -> Iterator[Item]:
    """Yields all starting points."""
    for target in TARGETS:
        for backbone in UNITS if target == "digits" else WEIGHTS:
            for kept in sorted({0, UNITS[backbone], *depths(target, backbone)}):
                yield Item(target, backbone, kept)


def depths(target: str, backbone: str) -> set[int]:
    """Returns the numbers of pretrained units that are compared for a backbone; empty for some backbones."""
    steps = DEPTHS.get(backbone, 0) if (backbone == "conv3") == (target == "digits") else 0
    return {round(UNITS[backbone] * step / (steps - 1)) for step in range(steps)}


@functools.lru_cache(maxsize=1)
def load(target: str, backbone: str, shared: str) -> Any:
    """Returns the task of a target with a backbone and its pretrained weights."""
    import nbt

    options = dict(TARGETS[target])
    if target != "digits":
        root = Path(shared)
        options["data_dir"] = str(root / options["data_dir"]) if "data_dir" in options else None
        if options["dataset"].startswith("data/"):
            options["dataset"] = str(root / options["dataset"])
    if backbone in WEIGHTS:
        options |= {"weights": str(Path(shared) / WEIGHTS[backbone]), "image_size": 64}
    return nbt.load_task(backbone=backbone, **options)


def starting_task(item: Item, shared: str) -> Any:
    """Returns the task of an item; its w0 are the weights that fine-tuning starts from."""
    from nbt.models.weights import random_unit_state

    task = load(item.target, item.backbone, shared)
    random_state = random_unit_state(task.backbone, task.image_size, 0)
    mixed = {n: tensor if int(n.split(".")[1]) < item.kept else random_state[n] for n, tensor in task.w0.items()}
    return dataclasses.replace(task, w0=mixed, weights=f"first {item.kept} of {UNITS[item.backbone]} units pretrained")


def fine_tune_item(item: Item, shared: str) -> dict[str, Any]:
    """Fine-tunes from one starting point, and returns [validation, test] accuracy by recipe and seed."""
    from nbt.settings import TransferSettings
    from nbt.training.results import TrialSpec
    from nbt.training.run_trial import run_trial
    from nbt.training.worker.context import WorkerContext

    task = starting_task(item, shared)
    context = WorkerContext(task)
    accuracies: dict[str, list[list[float | None]]] = {}
    for name, recipe in RECIPES.items():
        if name.startswith("adamw") and item.backbone not in WITHOUT_NORM:
            continue
        settings = TransferSettings(epochs=EPOCHS, **recipe)
        specs = [TrialSpec(key="one", settings=settings, seed=seed, evaluate_test=True) for seed in SEEDS]
        results = [run_trial(spec, context, no_stop) for spec in specs]
        accuracies[name] = [
            [0.0, 0.0] if result.diverged else [result.curve[-1].val_accuracy, result.test_accuracy]
            for result in results
        ]
    context.close()
    return accuracies


def profile_item(item: Item, shared: str) -> dict[str, Any]:
    """Returns the fit profile of one starting point."""
    from nbt.fit import profile_fit

    profile = profile_fit(starting_task(item, shared), cache=False)
    return profile.with_facts(dataset=item.target).to_dict()  # the name instead of a path on this machine


def no_stop(result: Any) -> None:
    """Receives a result of a run, and never stops the run."""


def collect(kind: str, args: argparse.Namespace, *, compute: Callable[[Item, str], dict[str, Any]]) -> None:
    """Computes and stores the missing items of this shard, one line per item.

    Args:
        kind: "runs" or "profiles", which is part of the file name and the key of the result.
        args: `shard`, "I/N", and `shared`, the folder with data/ and weights/.
        compute: Returns the result of an item.
    """
    start_shards(args)
    part, parts = (int(number) for number in args.shard.split("/"))
    path = RESULTS / f"fit_validity_{kind}{'' if parts == 1 else part}.jsonl"
    done = read(kind)
    missing = [item for index, item in enumerate(items()) if index % parts == part and item not in done]
    for count, item in enumerate(missing, start=1):
        value = compute(item, args.shared)
        with path.open("a") as file:
            file.write(json.dumps({"item": dataclasses.asdict(item), kind: value}) + "\n")
        print(f"{count} of {len(missing)}: {item}", flush=True)


def read(kind: str) -> dict[Item, Any]:
    """Returns the stored results of all shards by item."""
    lines = [json.loads(line) for path in sorted(RESULTS.glob(f"fit_validity_{kind}*.jsonl")) for line in path.open()]
    return {Item(**line["item"]): line[kind] for line in lines}


def read_both() -> list[tuple[Item, dict[str, Any]]]:
    """Returns accuracies and measures of every item that is both fine-tuned and profiled."""
    profiles = read("profiles")
    return [
        (item, {"accuracies": accuracies, "measures": measures_of(item, profiles[item])})
        for item, accuracies in read("runs").items()
        if item in profiles
    ]


def measures_of(item: Item, profile: Mapping[str, Any]) -> dict[str, float]:
    """Returns the measures of one item; those for which lower is better are negated."""
    values = {name: value for name, value in profile["scalars"].items() if value is not None}
    values["gain_of_last_unit"] = values["ridge_accuracy"] - values["ridge_accuracy_random"]
    values["pretrained_share"] = item.kept / UNITS[item.backbone]
    return {
        name: -value if name in LOWER_IS_BETTER else value
        for name, value in values.items()
        if name not in FACTS and not name.endswith("_random")
    }


def fine_tuned_accuracy(line: Mapping[str, Any], seeds: Sequence[int]) -> float:
    """Returns the mean test accuracy over seeds of the recipe with the best mean validation accuracy."""
    means = [np.mean([runs[seed] for seed in seeds], axis=0) for runs in line["accuracies"].values()]
    return float(max(means, key=lambda mean: mean[0])[1])


def weighted_tau(measure: Sequence[float], accuracy: Sequence[float]) -> float:
    """Returns the weighted Kendall tau, which weights exchanges among the best items most; 0 for a constant measure."""
    from scipy.stats import weightedtau

    if len(set(measure)) < 2 or len(set(accuracy)) < 2:
        return 0.0
    return float(weightedtau(measure, accuracy).statistic)


Group = list[tuple[Item, dict[str, Any]]]


def tau_of(name: str, group: Group, seeds: Sequence[int]) -> float:
    """Returns the tau of a measure over the items of a group that have it; NaN for fewer than three items."""
    lines = [line for _, line in group if math.isfinite(line["measures"].get(name, math.nan))]
    if len(lines) < 3:
        return math.nan
    return weighted_tau(
        [line["measures"][name] for line in lines], [fine_tuned_accuracy(line, seeds) for line in lines]
    )


def summarise(
    name: str, groups: Mapping[tuple[str, str, str], Group], rng: np.random.Generator
) -> dict[str, Any] | None:
    """Returns the mean tau over groups with its 95 % bootstrap interval over groups, their items, and seeds."""
    taus = {key: tau_of(name, group, SEEDS) for key, group in groups.items()}
    usable = [groups[key] for key, tau in taus.items() if not math.isnan(tau)]
    if not usable:
        return None
    means = []
    for _ in range(BOOTSTRAP):
        sample = [usable[i] for i in rng.integers(len(usable), size=len(usable))]
        seeds = tuple(rng.integers(len(SEEDS), size=len(SEEDS)))
        values = [tau_of(name, resample(group, rng), seeds) for group in sample]
        values = [value for value in values if not math.isnan(value)]
        if values:
            means.append(np.mean(values))
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "tau": float(np.nanmean(list(taus.values()))),
        "low": float(low),
        "high": float(high),
        "groups": len(usable),
        "by_group": {" ".join(key[1:]): tau for key, tau in taus.items() if not math.isnan(tau)},
    }


def resample(group: Group, rng: np.random.Generator) -> Group:
    """Returns the distinct items of a bootstrap sample of a group, at least three where the group has as many."""
    while True:
        sample = rng.integers(len(group), size=len(group))
        if len(set(sample)) >= min(3, len(group)):
            return [group[i] for i in sorted(set(sample))]


def report(args: argparse.Namespace) -> None:
    """Writes the tables of the stored items as JSON and Markdown."""
    import torch

    runs = read_both()
    by_kind: dict[str, dict[tuple[str, str, str], Group]] = defaultdict(lambda: defaultdict(list))
    for item, line in runs:
        for group in item.groups():
            by_kind[group[0]][group].append((item, line))
    rng = np.random.default_rng(0)
    result: dict[str, Any] = {"machine": platform.machine(), "torch": torch.__version__, "runs": len(runs)}
    for kind, groups in by_kind.items():
        names = sorted({name for group in groups.values() for _, line in group for name in line["measures"]})
        rows = {name: summarise(name, groups, rng) for name in names}
        result[kind] = dict(sorted(((n, r) for n, r in rows.items() if r), key=lambda pair: -pair[1]["tau"]))
    result["accuracies"] = [
        {**dataclasses.asdict(item), "accuracy": round(fine_tuned_accuracy(line, SEEDS), 4)} for item, line in runs
    ]
    (RESULTS / "fit_validity.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "fit_validity.md").write_text(markdown(result))


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the tables as Markdown."""
    lines = [
        "# Fit measures against fine-tuned accuracy",
        "",
        "Weighted Kendall tau with the test accuracy after fine-tuning, mean over groups, with the 95 % bootstrap",
        "interval over groups, items and seeds. Measures for which lower is better are negated. A measure has *skill*",
        "if its interval is above 0.",
        "",
    ]
    for kind, title in (("backbone", "Across backbones of one target"), ("depth", "Across transfer depths")):
        rows = result.get(kind, {})
        groups = sorted({group for row in rows.values() for group in row["by_group"]})
        lines += [f"## {title}", "", "| measure | tau | 95 % | skill | " + " | ".join(groups) + " |"]
        lines += ["|---|---|---|---|" + "---|" * len(groups)]
        for name, row in rows.items():
            label = f"**{name}** (trivial)" if name in TRIVIAL else name
            cells = [tau_text(row["by_group"].get(group, math.nan)) for group in groups]
            skill = "yes" if row["low"] > 0 else "no"
            interval = f"{row['low']:.2f} ... {row['high']:.2f}"
            lines.append(f"| {label} | {row['tau']:.2f} | {interval} | {skill} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def tau_text(value: float) -> str:
    """Returns a tau with two decimals, or a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, kind, compute, text in (
        ("run", "runs", fine_tune_item, "fine-tune from the starting points that are not stored yet"),
        ("profile", "profiles", profile_item, "measure the starting points that are not stored yet"),
    ):
        collector = commands.add_parser(name, help=text)
        collector.add_argument("--shared", default="../shared", help="folder with data/ and weights/")
        add_shard_option(collector, "item")
        collector.set_defaults(do=functools.partial(collect, kind, compute=compute))
    reporter = commands.add_parser("report", help="write the tables of the stored items")
    reporter.set_defaults(do=report)
    args = parser.parse_args()
    do: Callable[[argparse.Namespace], None] = args.do
    do(args)


if __name__ == "__main__":
    main()
