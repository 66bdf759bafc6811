"""Study: do the fit measures mean something?

Fine-tunes real backbones on real images and asks, for every measure of `nbt fit`, whether it ranks them as
fine-tuning does: the weighted Kendall tau between the measure and the fine-tuned test accuracy

- across *backbones* for one target: ImageNet weights at hand and random initialisations of the same architectures;
- across *transfer depths* for one backbone: how many units, from the input, keep their pretrained weights.

Beside every measure stand the trivial baselines: model size, the share of units that are pretrained (for backbones:
whether they are pretrained at all), and the ridge probe of the last unit. Targets are small: 64 px, 15 images a class
of CUB-50. Every accuracy is the mean over the seeds, of the recipe that is best on validation: SGD at .0003, .003 or
.03, and AdamW for squeezenet, which has no BatchNorm and which SGD does not train at these rates.

    python studies/fit_validity.py run --shared ../shared        # resumable; an hour or two on one core
    python studies/fit_validity.py run --shared ../shared --shard 0/2      # and 1/2 beside it, on another core
    python studies/fit_validity.py profile --shared ../shared    # measures the same starting points; minutes
    python studies/fit_validity.py report                        # writes studies/results/fit_validity.{json,md}

Runs and profiles are kept, one line each, in `studies/results/fit_validity_{runs,profiles}*.jsonl`.
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

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1)
# SGD at these rates does not train a network whose features no BatchNorm scales, so that has AdamW beside it.
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
# Higher is better for all of these but the shifts and the dead channels.
LOWER_IS_BETTER = ("mean_shift", "variance_shift", "dead_channels")
FACTS = (
    *("classes", "train_images", "images_per_class", "smallest_class", "imbalance", "samples"),
    *("image_size", "units", "feature_dim"),
)
TRIVIAL = ("pretrained_share", "parameters", "ridge_accuracy")


@dataclasses.dataclass(frozen=True)
class Item:
    """One starting point of fine-tuning: a backbone of a target whose first `kept` units are pretrained.

    Attributes:
        target: Key of `TARGETS`.
        backbone: Its name.
        kept: Units that keep pretrained weights.
    """

    target: str
    backbone: str
    kept: int

    def groups(self) -> Iterator[tuple[str, str, str]]:
        """Yields what it is ranked within: kind, target, backbone."""
        if self.kept in (0, UNITS[self.backbone]):
            yield "backbone", self.target, "all"
        if self.kept in depths(self.target, self.backbone):
            yield "depth", self.target, self.backbone


def items() -> Iterator[Item]:
    """Yields everything that is compared."""
    for target in TARGETS:
        for backbone in UNITS if target == "digits" else WEIGHTS:
            for kept in sorted({0, UNITS[backbone], *depths(target, backbone)}):
                yield Item(target, backbone, kept)


def depths(target: str, backbone: str) -> set[int]:
    """Returns the numbers of pretrained units that are compared for a backbone; few or none for some."""
    steps = DEPTHS.get(backbone, 0) if (backbone == "conv3") == (target == "digits") else 0
    return {round(UNITS[backbone] * step / (steps - 1)) for step in range(steps)}


@functools.lru_cache(maxsize=1)
def load(target: str, backbone: str, shared: str) -> Any:
    """Returns a target with a backbone and its pretrained weights."""
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


def start(item: Item, shared: str) -> Any:
    """Returns the task with the weights that the item starts from as its w0."""
    from nbt.models.weights import random_unit_state

    task = load(item.target, item.backbone, shared)
    fresh = random_unit_state(task.backbone, task.image_size, 0)
    mixed = {n: tensor if int(n.split(".")[1]) < item.kept else fresh[n] for n, tensor in task.w0.items()}
    return dataclasses.replace(task, w0=mixed, weights=f"first {item.kept} of {UNITS[item.backbone]} units pretrained")


def fine_tune_item(item: Item, shared: str) -> dict[str, Any]:
    """Fine-tunes from one starting point; returns [validation, test] accuracy by recipe and seed."""
    from nbt.settings import TransferSettings
    from nbt.training.results import TrialSpec
    from nbt.training.run_trial import run_trial
    from nbt.training.worker.context import WorkerContext

    task = start(item, shared)
    bench = WorkerContext(task)
    accuracies: dict[str, list[list[float]]] = {}
    for name, recipe in RECIPES.items():
        if name.startswith("adamw") and item.backbone not in WITHOUT_NORM:
            continue
        settings = TransferSettings(epochs=EPOCHS, **recipe)
        specs = [TrialSpec(key="one", settings=settings, seed=seed, evaluate_test=True) for seed in SEEDS]
        done = [run_trial(spec, bench, no_stop) for spec in specs]
        accuracies[name] = [
            [0.0, 0.0] if outcome.diverged else [outcome.best.val_accuracy, outcome.test_accuracy] for outcome in done
        ]
    bench.close()
    return accuracies


def profile_item(item: Item, shared: str) -> dict[str, Any]:
    """Returns the fit profile of one starting point."""
    from nbt.fit import profile_fit

    profile = profile_fit(start(item, shared), cache=False)
    return profile.with_facts(dataset=item.target).to_dict()  # not where it lies on this machine


def no_stop(result: Any) -> None:
    """Lets a run go on."""


def collect(kind: str, args: argparse.Namespace, *, make: Callable[[Item, str], dict[str, Any]]) -> None:
    """Makes what is missing of this shard, a line each."""
    part, parts = (int(number) for number in args.shard.split("/"))
    path = RESULTS / f"fit_validity_{kind}{'' if parts == 1 else part}.jsonl"
    done = read(kind)
    wanted = [item for index, item in enumerate(items()) if index % parts == part and item not in done]
    for count, item in enumerate(wanted, start=1):
        value = make(item, args.shared)
        with path.open("a") as file:
            file.write(json.dumps({"item": dataclasses.asdict(item), kind: value}) + "\n")
        print(f"{count} of {len(wanted)}: {item}", flush=True)


def read(kind: str) -> dict[Item, Any]:
    """Returns what all shards have."""
    lines = [json.loads(line) for path in sorted(RESULTS.glob(f"fit_validity_{kind}*.jsonl")) for line in path.open()]
    return {Item(**line["item"]): line[kind] for line in lines}


def read_both() -> list[tuple[Item, dict[str, Any]]]:
    """Returns every item that was fine-tuned and profiled."""
    profiles = read("profiles")
    return [
        (item, {"accuracies": accuracies, "measures": measures_of(item, profiles[item])})
        for item, accuracies in read("runs").items()
        if item in profiles
    ]


def measures_of(item: Item, profile: Mapping[str, Any]) -> dict[str, float]:
    """Returns the measures of one item, lower-is-better ones negated."""
    values = {name: value for name, value in profile["scalars"].items() if value is not None}
    values["gain_of_last_unit"] = values["ridge_accuracy"] - values["ridge_accuracy_random"]
    values["pretrained_share"] = item.kept / UNITS[item.backbone]
    return {
        name: -value if name in LOWER_IS_BETTER else value
        for name, value in values.items()
        if name not in FACTS and not name.endswith("_random")
    }


def fine_tuned(line: Mapping[str, Any], seeds: Sequence[int]) -> float:
    """Returns the mean test accuracy over seeds of the recipe with the best mean validation accuracy."""
    means = [np.mean([runs[seed] for seed in seeds], axis=0) for runs in line["accuracies"].values()]
    return float(max(means, key=lambda mean: mean[0])[1])


def weighted_tau(measure: Sequence[float], accuracy: Sequence[float]) -> float:
    """Returns the weighted Kendall tau, in which exchanges among the best weigh most; 0 for a constant measure."""
    from scipy.stats import weightedtau

    if len(set(measure)) < 2 or len(set(accuracy)) < 2:
        return 0.0
    return float(weightedtau(measure, accuracy).statistic)


Group = list[tuple[Item, dict[str, Any]]]


def tau_of(name: str, group: Group, seeds: Sequence[int]) -> float:
    """Returns the tau of a measure within a group of items that all have it; NaN where fewer than three do."""
    have = [(line["measures"], line) for _, line in group]
    have = [(values[name], line) for values, line in have if name in values and math.isfinite(values[name])]
    if len(have) < 3:
        return math.nan
    return weighted_tau([value for value, _ in have], [fine_tuned(line, seeds) for _, line in have])


def summarise(
    name: str, groups: Mapping[tuple[str, str, str], Group], chance: np.random.Generator
) -> dict[str, Any] | None:
    """Returns the mean tau over groups with its 95 % bootstrap interval: over groups, items in them, and seeds."""
    taus = {key: tau_of(name, group, SEEDS) for key, group in groups.items()}
    usable = [groups[key] for key, tau in taus.items() if not math.isnan(tau)]
    if not usable:
        return None
    means = []
    for _ in range(BOOTSTRAP):
        picked = [usable[i] for i in chance.integers(len(usable), size=len(usable))]
        seeds = tuple(chance.integers(len(SEEDS), size=len(SEEDS)))
        values = [tau_of(name, resample(group, chance), seeds) for group in picked]
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


def resample(group: Group, chance: np.random.Generator) -> Group:
    """Returns a bootstrap draw of a group that has at least three different items."""
    while True:
        picked = chance.integers(len(group), size=len(group))
        if len(set(picked)) >= min(3, len(group)):
            return [group[i] for i in sorted(set(picked))]


def report(args: argparse.Namespace) -> None:
    """Writes table and figures of what has been run."""
    import torch

    runs = read_both()
    by_kind: dict[str, dict[tuple[str, str, str], Group]] = defaultdict(lambda: defaultdict(list))
    for item, line in runs:
        for group in item.groups():
            by_kind[group[0]][group].append((item, line))
    chance = np.random.default_rng(0)
    result: dict[str, Any] = {"machine": platform.machine(), "torch": torch.__version__, "runs": len(runs)}
    for kind, groups in by_kind.items():
        names = sorted({name for group in groups.values() for _, line in group for name in line["measures"]})
        rows = {name: summarise(name, groups, chance) for name in names}
        result[kind] = dict(sorted(((n, r) for n, r in rows.items() if r), key=lambda pair: -pair[1]["tau"]))
    result["accuracies"] = [
        {**dataclasses.asdict(item), "accuracy": round(fine_tuned(line, SEEDS), 4)} for item, line in runs
    ]
    (RESULTS / "fit_validity.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "fit_validity.md").write_text(markdown(result))


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the tables."""
    lines = [
        "# Fit measures against fine-tuned accuracy",
        "",
        "Weighted Kendall tau with the test accuracy after fine-tuning, mean over groups, with the 95 % bootstrap",
        "interval over groups, items and seeds. Measures for which less is better are negated. A measure has *skill*",
        "where the interval is above 0.",
        "",
    ]
    for kind, what in (("backbone", "Across backbones of one target"), ("depth", "Across transfer depths")):
        rows = result.get(kind, {})
        groups = sorted({group for row in rows.values() for group in row["by_group"]})
        lines += [f"## {what}", "", "| measure | tau | 95 % | skill | " + " | ".join(groups) + " |"]
        lines += ["|---|---|---|---|" + "---|" * len(groups)]
        for name, row in rows.items():
            label = f"**{name}** (trivial)" if name in TRIVIAL else name
            cells = [number(row["by_group"].get(group, math.nan)) for group in groups]
            skill = "yes" if row["low"] > 0 else "no"
            interval = f"{row['low']:.2f} ... {row['high']:.2f}"
            lines.append(f"| {label} | {row['tau']:.2f} | {interval} | {skill} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def number(value: float) -> str:
    """Returns a tau, or a dash."""
    return "-" if math.isnan(value) else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, kind, make in (("run", "runs", fine_tune_item), ("profile", "profiles", profile_item)):
        collector = commands.add_parser(name)
        collector.add_argument("--shared", default="../shared", help="folder with data and weights")
        collector.add_argument("--shard", default="0/1", help="I/N: every N-th item, from the I-th")
        collector.set_defaults(do=functools.partial(collect, kind, make=make))
    reporter = commands.add_parser("report")
    reporter.set_defaults(do=report)
    args = parser.parse_args()
    do: Callable[[argparse.Namespace], None] = args.do
    do(args)


if __name__ == "__main__":
    main()
