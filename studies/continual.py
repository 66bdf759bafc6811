"""Study: does DLCFT forget less than EWC on real streams, and what do the other techniques do there?

Claim (arXiv 2208.08112): linearised fine-tuning with squared error and a quadratic penalty is above EWC with
cross-entropy in data-, task- and class-incremental streams. Seven methods (`nbt continual`) learn the same streams:

- digits: `conv3` from digits 0-4 to 5-9;
- cub50: `mobilenet_v2(width_mult=0.35)` from ImageNet to CUB-50 crop at 64 px;
- omniglot: `conv3` from 70 classes of the small Omniglot set to the other 66.

Every method and scenario is tuned with the same effort, four streams with an order, a split and a seed of their own,
judged by average accuracy on validation images: its learning rates times .3, 1 and 3 of its own defaults, and at the
best of these either its penalty ten times as strong (EWC, DLCFT) or its rates ten times lower or higher, beyond the
better end. A linear probe has nothing to tune, its ridge is chosen on the first task. Then three orders and seeds run
and are tested once. Joint training sees all images so far again: what the others would like to reach.

In the class-incremental scenario DLCFT also runs with parts of it left out: diagonal curvature, no penalty, a random
head; and joint training of the linearised network.

    python studies/continual.py run --shared ../shared --dataset digits      # resumable
    python studies/continual.py run --shared ../shared                       # everything: some three hours on one core
    python studies/continual.py run --shared ../shared --shard 0/2           # and 1/2 beside it, on another core
    python studies/continual.py report                                       # studies/results/continual.{json,md,svg}

Rows are kept, one line a stream, in `studies/results/continual_rows*.jsonl`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

import nbt
from nbt.settings import TransferSettings
from nbt.settings.continual import METHODS, ContinualSettings, method_overrides
from nbt.task.task import Task
from nbt.tuning.intervals import Interval, accuracy_interval, paired_interval, t_interval

RESULTS = Path(__file__).parent / "results"
SCENARIOS = ("class", "task", "data")
TASKS = {
    "digits": {"class": 5, "task": 2, "data": 5},
    "cub50": {"class": 5, "task": 5, "data": 5},
    "omniglot": {"class": 6, "task": 6, "data": 3},
}
EPOCHS = {"digits": 12, "cub50": 6, "omniglot": 10}
SEEDS = (0, 1, 2)
TUNING_SEED = 1000
RATES = (0.3, 1.0, 3.0)
BEYOND = 10.0
UNTUNED = ("probe",)
PENALISED = ("ewc", "dlcft")
SOURCE_CLASSES = 70
# Parts of DLCFT left out, with the rates that were chosen for the whole.
ABLATIONS: dict[str, dict[str, Any]] = {
    "dlcft, diagonal": {"recipe": {"curvature": "diagonal"}},
    "dlcft, no penalty": {"recipe": {"penalty_strength": 0.0}},
    "dlcft, random head": {"head": "random"},
    "joint, linearised": {"recipe": {"method": "joint"}},
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One stream: of the tuning (`evaluate_on` "val"), or of the result ("test")."""

    dataset: str
    scenario: str
    method: str
    seed: int
    evaluate_on: str
    rate: float = 1.0
    strength: float = 1.0

    def settings(self) -> ContinualSettings:
        """Returns the stream's settings."""
        parts = ABLATIONS.get(self.method, {})
        base = "dlcft" if parts else self.method
        recipe = TransferSettings(epochs=EPOCHS[self.dataset]).replace(**method_overrides(base, self.scenario))
        recipe = recipe.replace(
            head_lr=recipe.head_lr * self.rate,
            body_lr=recipe.body_lr * self.rate,
            penalty_strength=recipe.penalty_strength * self.strength,
        )
        recipe = recipe.replace(**parts.get("recipe", {}))
        options = {name: value for name, value in parts.items() if name != "recipe"}
        tasks = TASKS[self.dataset][self.scenario]
        return ContinualSettings(scenario=self.scenario, tasks=tasks, recipe=recipe, **options)


@functools.lru_cache(maxsize=1)
def load(dataset: str, shared: str, seed: int) -> Task:
    """Returns a dataset with pretrained weights; the seed cuts its validation images."""
    if dataset == "digits":
        return nbt.load_task("digits", backbone="conv3", seed=seed)
    if dataset == "cub50":
        weights = Path(shared) / "weights/mobilenet_v2_035-imagenet.pth"
        backbone = "mobilenet_v2(width_mult=0.35)"
        data = Path(shared) / "data"
        return nbt.load_task("cub", backbone=backbone, weights=weights, data_dir=data, image_size=64, seed=seed)
    return load_omniglot(str(Path(shared) / "data"), seed)


def load_omniglot(data_dir: str, seed: int) -> Task:
    """Returns the classes of the small Omniglot set that the source does not have."""
    from nbt.data.resolve import resolve
    from nbt.models.backbone_spec import parse_backbone
    from nbt.settings.pretrain import default_pretrain_settings
    from nbt.training.pretrain.scheme_sources import pretrain
    from nbt.training.pretrain.source_images import load_source_images

    images = load_source_images(resolve("omniglot-small", data_dir), 28, classes=SOURCE_CLASSES)
    source = pretrain(
        images, parse_backbone("conv3"), default_pretrain_settings("iid", "conv3", epochs=17, batch_size=32), 0
    )
    task = nbt.load_task(
        "omniglot-small", backbone="conv3", weights="none", data_dir=data_dir, image_size=28, seed=seed
    )
    return dataclasses.replace(keep_classes(task, SOURCE_CLASSES), w0=source.weights.w0)


def keep_classes(task: Task, first: int) -> Task:
    """Returns the task with its classes from `first` on."""

    def kept(part: Any) -> Any:
        rows = {item.name: getattr(part, item.name) for item in dataclasses.fields(part)}
        rows = {n: v[task.labels[v] >= first] if isinstance(v, np.ndarray) else v for n, v in rows.items()}
        return dataclasses.replace(part, **rows)

    labels = np.maximum(task.labels - first, 0)
    names = task.class_names[first:]
    return dataclasses.replace(
        task, labels=labels, class_names=names, pools=kept(task.pools), split=kept(task.split), fingerprint="omniglot66"
    )


@functools.lru_cache(maxsize=1)
def bench(dataset: str, shared: str, seed: int) -> Any:
    """Returns the tools that the streams of one task share."""
    from nbt.training.worker.context import WorkerContext

    return WorkerContext(load(dataset, shared, seed))


def learn(run: Run, shared: str) -> dict[str, Any]:
    """Learns a stream."""
    from nbt.training.continual.run import run_continual

    task = load(run.dataset, shared, run.seed)
    tools = bench(run.dataset, shared, run.seed)
    stream = run_continual(task, run.settings(), run.seed, context=tools, evaluate_on=run.evaluate_on)
    while True:
        try:
            next(stream)
        except StopIteration as end:
            found = end.value
            break
    values = {name: getattr(found, name) for name in ("average_accuracy", "forgetting", "forward_transfer", "seconds")}
    return {"run": dataclasses.asdict(run), **values, "diverged": found.diverged, "matrix": found.matrix.tolist()}


class Rows:
    """What has been run, in memory and in the file of this shard."""

    def __init__(self, folder: Path, shard: str) -> None:
        self.found = {Run(**row["run"]): row for row in read(folder)}
        number, count = map(int, shard.split("/"))
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / (f"continual_rows_{number}.jsonl" if count > 1 else "continual_rows.jsonl")

    def get(self, run: Run, shared: str) -> dict[str, Any]:
        """Returns a row, and runs and keeps it where it is not there yet."""
        if run not in self.found:
            row = learn(run, shared)
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            self.found[run] = row
            print(f"{run} {100 * row['average_accuracy']:.1f} % in {row['seconds']:.0f} s", flush=True)
        return self.found[run]


def read(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of all shards."""
    return [json.loads(line) for path in sorted(folder.glob("continual_rows*.jsonl")) for line in path.open()]


def tune(rows: Rows, dataset: str, scenario: str, method: str, shared: str) -> Run:
    """Returns the run that was best on the validation images of the tuning stream."""
    first = Run(dataset, scenario, method, TUNING_SEED, "val")
    if method in UNTUNED:
        return first
    tried = [dataclasses.replace(first, rate=rate) for rate in RATES]

    def merit(run: Run) -> float:
        return float(rows.get(run, shared)["average_accuracy"])

    best = max(tried, key=merit)
    if method in PENALISED:
        last = dataclasses.replace(best, strength=BEYOND)
    else:
        last = dataclasses.replace(first, rate=max(RATES) * BEYOND if best.rate >= 1.0 else min(RATES) / BEYOND)
    return max((best, last), key=merit)


def cells(datasets: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yields dataset, scenario and method, what is quick first."""
    for dataset in datasets:
        for scenario in SCENARIOS:
            for method in METHODS:
                yield dataset, scenario, method


def run(args: argparse.Namespace) -> None:
    """Runs what is not there yet."""
    import torch

    torch.set_num_threads(1)
    rows = Rows(args.results, args.shard)
    shard, shards = map(int, args.shard.split("/"))
    for dataset, scenario, method in list(cells(args.dataset))[shard::shards]:
        chosen = tune(rows, dataset, scenario, method, args.shared)
        named = [method]
        if scenario == "class" and method == "dlcft":
            named += ABLATIONS
        for name in named:
            for seed in SEEDS:
                rows.get(dataclasses.replace(chosen, method=name, seed=seed, evaluate_on="test"), args.shared)


Cell = dict[int, Mapping[str, Any]]


def tested(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], Cell]:
    """Returns the tested streams by dataset, scenario and method, and seed."""
    found: dict[tuple[str, str, str], Cell] = {}
    for row in rows:
        one = Run(**row["run"])
        if one.evaluate_on == "test":
            found.setdefault((one.dataset, one.scenario, one.method), {})[one.seed] = row
    return found


def words(values: Sequence[float | None], interval: Callable[[Sequence[float]], Interval] = t_interval) -> str:
    """Returns a mean of shares in percent with its interval over seeds."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    found = interval(known)
    if found.low is None or found.high is None:
        return f"{100 * found.mean:.1f}"
    return f"{100 * found.mean:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def table(found: Mapping[tuple[str, str, str], Cell], dataset: str, scenario: str) -> list[str]:
    """Returns the rows of one stream's table."""
    lines = []
    for method in (*METHODS, *ABLATIONS):
        cell = found.get((dataset, scenario, method))
        if not cell:
            continue
        one = Run(**next(iter(cell.values()))["run"])
        accuracy = words([row["average_accuracy"] for row in cell.values()], accuracy_interval)
        others = [words([row[name] for row in cell.values()]) for name in ("forgetting", "forward_transfer")]
        seconds = float(np.median([row["seconds"] for row in cell.values()]))
        chosen = "" if method in UNTUNED else f"{one.rate:g}" + (f", x{one.strength:g}" if one.strength != 1.0 else "")
        lines.append(f"| {method} | {' | '.join((accuracy, *others))} | {chosen} | {seconds:.0f} |")
    return lines


def difference(found: Mapping[tuple[str, str, str], Cell], one: tuple[str, str, str], other: str) -> Any:
    """Returns the paired difference of a method to another on the same streams; None below two seeds."""
    a, b = found.get(one, {}), found.get((*one[:2], other), {})
    seeds = sorted(set(a) & set(b))
    if len(seeds) < 2:
        return None
    return paired_interval(*([100 * float(cell[seed]["average_accuracy"]) for seed in seeds] for cell in (a, b)))


def finding(found: Mapping[tuple[str, str, str], Cell]) -> str:
    """Returns what the differences say, in one paragraph."""
    against: dict[str, list[str]] = {"above": [], "below": [], "open": []}
    probes = []
    for dataset, scenario, method in sorted(found):
        if method != "dlcft":
            continue
        gap = difference(found, (dataset, scenario, method), "ewc")
        if gap is not None:
            kind = "above" if gap.low > 0 else "below" if gap.high < 0 else "open"
            against[kind].append(f"{dataset} {scenario} {gap.mean:+.1f} [{gap.low:.1f}, {gap.high:.1f}]")
        other = difference(found, (dataset, scenario, method), "probe")
        if other is not None:
            probes.append(f"{dataset} {scenario} {other.mean:+.1f} [{other.low:.1f}, {other.high:.1f}]")
    total = sum(map(len, against.values()))
    if not total:
        return "No stream has two seeds of both yet: nothing can be said."
    held = {total: "confirmed", 0: "not confirmed"}.get(len(against["above"]), "confirmed in part")
    parts = [f"{kind} in {len(those)}: {'; '.join(those)}" for kind, those in against.items() if those]
    return (
        f"That DLCFT is above EWC is **{held}** here: of {total} streams it is (points of average accuracy, 95 % "
        f"intervals over {len(SEEDS)} orders and seeds) {'. It is '.join(parts)}. Against a linear probe, which "
        f"changes no feature: {'; '.join(probes)}."
    )


def draw(found: Mapping[tuple[str, str, str], Cell], path: Path) -> None:
    """Draws average accuracies, one panel a stream."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    names = [d for d in TASKS if any(key[0] == d for key in found)]
    figure, axes = pyplot.subplots(
        len(names), len(SCENARIOS), figsize=(9, 2.2 * len(names)), sharex=True, squeeze=False, layout="constrained"
    )
    for row, dataset in zip(axes, names, strict=True):
        for axis, scenario in zip(row, SCENARIOS, strict=True):
            for place, method in enumerate(reversed(METHODS)):
                values = [100 * r["average_accuracy"] for r in found.get((dataset, scenario, method), {}).values()]
                axis.plot(values, [place] * len(values), "o", color="C0" if method == "dlcft" else "0.45", alpha=0.7)
            axis.set_yticks(range(len(METHODS)), list(reversed(METHODS)) if scenario == SCENARIOS[0] else [])
            axis.set_title(f"{dataset}, {scenario}", fontsize=9)
            axis.grid(axis="x", alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("average accuracy, %")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def report(args: argparse.Namespace) -> None:
    """Writes table, figure and finding of what has been run."""
    rows = read(args.results)
    found = tested(rows)
    lines = ["# Streams of tasks: DLCFT, EWC and the others", "", finding(found), ""]
    lines += [
        f"{machine()}. Means over orders and seeds with 95 % intervals (Student's t), in %; `studies/continual.py`. "
        "Seconds are medians of wall-clock on a machine with other work, during which some streams stood still."
    ]
    heading = "| method | average accuracy | forgetting | forward transfer | rate, penalty | seconds |"
    for dataset, scenario in dict.fromkeys((key[0], key[1]) for key in found):
        tasks = TASKS[dataset][scenario]
        lines += ["", f"## {dataset}, {scenario}-incremental, {tasks} tasks of {EPOCHS[dataset]} epochs", ""]
        lines += [heading, "|---|---|---|---|---|---|", *table(found, dataset, scenario)]
    result = {
        "machine": machine(),
        "finding": finding(found),
        "streams": [
            {"dataset": d, "scenario": s, "method": m, "accuracies": [r["average_accuracy"] for r in cell.values()]}
            for (d, s, m), cell in found.items()
        ],
    }
    (args.results / "continual.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.results / "continual.md").write_text("\n".join(lines) + "\n")
    draw(found, args.results / "continual.svg")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--shared", default="../shared", help="folder with data and weights")
    runner.add_argument("--dataset", choices=TASKS, nargs="*", default=list(TASKS))
    runner.add_argument("--shard", default="0/1", help="I/N: every N-th method and scenario, from the I-th")
    runner.set_defaults(do=run)
    reporter = commands.add_parser("report")
    reporter.set_defaults(do=report)
    for command in (runner, reporter):
        command.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
