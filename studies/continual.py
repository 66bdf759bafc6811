"""Study: does DLCFT forget less than EWC on real streams, and how do other methods compare?

Claim (arXiv 2208.08112): linearised fine-tuning with squared error and a quadratic penalty is more accurate than EWC
with cross-entropy in data-, task- and class-incremental streams. The methods of `nbt continual` learn these streams:

- digits: `conv3` from digits 0-4 to 5-9;
- cub50: `mobilenet_v2(width_mult=0.35)` from ImageNet to CUB-50 crop at 64 px;
- omniglot: `conv3` from 70 classes of the small Omniglot set to the other 66.

Every method is tuned in every scenario on four streams with a separate order, split and seed, evaluated by average
accuracy on validation images. Three streams multiply the method's default learning rates by .3, 1
and 3. The fourth uses the best of these with a ten times stronger penalty (EWC, DLCFT) or, for the other methods, a
rate ten times above or below the range, on the side of the best rate. A linear probe is not tuned; its ridge is chosen
on the first task. Three orders and seeds of the best settings then run and are tested once. Joint training uses all
images so far and is the upper reference.

In the class-incremental scenario DLCFT also runs with ablations: diagonal curvature, no penalty, a fitted and
a random head (the default), and joint training of the linearised network.

Zapping is left out: its rows were measured while zaps went on until the learning rate was 0, so that the head could not
recover. The rows of DLCFT in class-incremental streams were measured with rows of zeros in the head for classes still
to come; the rows "dlcft, random head" are today's default.

    python studies/continual.py run --shared ../shared --dataset digits      # resumable
    python studies/continual.py run --shared ../shared                       # all datasets: about 3 hours on one core
    python studies/continual.py run --shared ../shared           # resumable; one process per core
    python studies/continual.py report                                       # studies/results/continual.{json,md,svg}

The results of the streams are stored in `studies/results/continual_rows*.jsonl`, one line per stream.
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
from shards import add_shard_option, start_shards

import nbt
from nbt.settings import TransferSettings
from nbt.settings.continual import METHODS, ContinualSettings, method_overrides
from nbt.task.task import Task
from nbt.tuning.intervals import Interval, accuracy_interval, paired_interval, t_interval

RESULTS = Path(__file__).parent / "results"
SCENARIOS = ("class", "task", "data")
COMPARED = tuple(method for method in METHODS if method != "zap")
TASKS = {
    "digits": {"class": 5, "task": 2, "data": 5},
    "cub50": {"class": 5, "task": 5, "data": 5},
    "omniglot": {"class": 6, "task": 6, "data": 3},
}
EPOCHS = {"digits": 12, "cub50": 6, "omniglot": 10}
SEEDS = (0, 1, 2)
TUNING_SEED = 1000
RATES = (0.3, 1.0, 3.0)
EXTENSION_FACTOR = 10.0
UNTUNED = ("probe",)
PENALISED = ("ewc", "dlcft")
SOURCE_CLASSES = 70
# Changes to DLCFT; the learning rates are those chosen for DLCFT.
ABLATIONS: dict[str, dict[str, Any]] = {
    "dlcft, diagonal": {"recipe": {"curvature": "diagonal"}},
    "dlcft, no penalty": {"recipe": {"penalty_strength": 0.0}},
    "dlcft, fitted head": {"head": "fitted"},
    "dlcft, random head": {"head": "random"},
    "joint, linearised": {"recipe": {"method": "joint"}},
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One stream.

    Attributes:
        dataset: Key of `TASKS`.
        scenario: One of `SCENARIOS`.
        method: One of `METHODS`, or a key of `ABLATIONS`.
        seed: Seed of split, order and training.
        evaluate_on: "val" in the tuning, "test" for the result.
        rate: Factor of the method's default learning rates.
        strength: Factor of the method's default penalty.
    """

    dataset: str
    scenario: str
    method: str
    seed: int
    evaluate_on: str
    rate: float = 1.0
    strength: float = 1.0

    def settings(self) -> ContinualSettings:
        """Returns the settings of the stream."""
        ablation = ABLATIONS.get(self.method, {})
        base = "dlcft" if ablation else self.method
        recipe = TransferSettings(epochs=EPOCHS[self.dataset]).replace(**method_overrides(base, self.scenario))
        recipe = recipe.replace(
            head_lr=recipe.head_lr * self.rate,
            body_lr=recipe.body_lr * self.rate,
            penalty_strength=recipe.stream.penalty_strength * self.strength,
        )
        recipe = recipe.replace(**ablation.get("recipe", {}))
        options = {name: value for name, value in ablation.items() if name != "recipe"}
        tasks = TASKS[self.dataset][self.scenario]
        return ContinualSettings(scenario=self.scenario, tasks=tasks, recipe=recipe, **options)


@functools.lru_cache(maxsize=1)
def load(dataset: str, shared: str, seed: int) -> Task:
    """Returns the task of a dataset with pretrained weights; the seed determines the validation images."""
    if dataset == "digits":
        return nbt.load_task("digits", backbone="conv3", seed=seed)
    if dataset == "cub50":
        weights = Path(shared) / "weights/mobilenet_v2_035-imagenet.pth"
        backbone = "mobilenet_v2(width_mult=0.35)"
        data = Path(shared) / "data"
        return nbt.load_task("cub", backbone=backbone, weights=weights, data_dir=data, image_size=64, seed=seed)
    return load_omniglot(str(Path(shared) / "data"), seed)


def load_omniglot(data_dir: str, seed: int) -> Task:
    """Returns the task of those classes of the small Omniglot set on which the source model is not trained."""
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
    """Returns the task restricted to the classes from number `first`."""

    def restrict(part: Any) -> Any:
        values = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        values = {n: v[task.labels[v] >= first] if isinstance(v, np.ndarray) else v for n, v in values.items()}
        return dataclasses.replace(part, **values)

    labels = np.maximum(task.labels - first, 0)
    names = task.class_names[first:]
    pools, split = restrict(task.pools), restrict(task.split)
    return dataclasses.replace(
        task, labels=labels, class_names=names, pools=pools, split=split, fingerprint="omniglot66"
    )


@functools.lru_cache(maxsize=1)
def worker_context(dataset: str, shared: str, seed: int) -> Any:
    """Returns the worker context that the streams of one task share."""
    from nbt.training.worker.context import WorkerContext

    return WorkerContext(load(dataset, shared, seed))


def learn(run: Run, shared: str) -> dict[str, Any]:
    """Trains a stream, and returns the row to be stored."""
    from nbt.training.continual.run import run_continual

    task = load(run.dataset, shared, run.seed)
    context = worker_context(run.dataset, shared, run.seed)
    stream = run_continual(task, run.settings(), run.seed, context=context, evaluate_on=run.evaluate_on)
    while True:
        try:
            next(stream)
        except StopIteration as end:
            result = end.value
            break
    values = {name: getattr(result, name) for name in ("average_accuracy", "forgetting", "forward_transfer", "seconds")}
    return {"run": dataclasses.asdict(run), **values, "diverged": result.diverged, "matrix": result.matrix.tolist()}


class Rows:
    """Rows of all shards in memory; new rows are appended to the file of this shard."""

    def __init__(self, folder: Path, shard: str) -> None:
        self.by_run = {Run(**row["run"]): row for row in read(folder)}
        number, count = map(int, shard.split("/"))
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / (f"continual_rows_{number}.jsonl" if count > 1 else "continual_rows.jsonl")

    def get(self, run: Run, shared: str) -> dict[str, Any]:
        """Returns the row of a stream; trains the stream and stores its row if it is missing."""
        if run not in self.by_run:
            row = learn(run, shared)
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            self.by_run[run] = row
            print(f"{run} {100 * row['average_accuracy']:.1f} % in {row['seconds']:.0f} s", flush=True)
        return self.by_run[run]


def read(folder: Path) -> list[dict[str, Any]]:
    """Returns the stored rows of all shards."""
    return [json.loads(line) for path in sorted(folder.glob("continual_rows*.jsonl")) for line in path.open()]


def tune(rows: Rows, dataset: str, scenario: str, method: str, shared: str) -> Run:
    """Returns the run with the best average accuracy on the validation images of the tuning streams."""
    first = Run(dataset, scenario, method, TUNING_SEED, "val")
    if method in UNTUNED:
        return first
    candidates = [dataclasses.replace(first, rate=rate) for rate in RATES]

    def accuracy(run: Run) -> float:
        return float(rows.get(run, shared)["average_accuracy"])

    best = max(candidates, key=accuracy)
    if method in PENALISED:
        last = dataclasses.replace(best, strength=EXTENSION_FACTOR)
    else:
        last = dataclasses.replace(
            first, rate=max(RATES) * EXTENSION_FACTOR if best.rate >= 1.0 else min(RATES) / EXTENSION_FACTOR
        )
    return max((best, last), key=accuracy)


def cells(datasets: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yields all combinations of dataset, scenario and method, dataset by dataset."""
    for dataset in datasets:
        for scenario in SCENARIOS:
            for method in COMPARED:
                yield dataset, scenario, method


def run(args: argparse.Namespace) -> None:
    """Runs all streams of this shard that are not stored yet."""
    start_shards(args)
    import torch

    torch.set_num_threads(1)
    rows = Rows(args.results, args.shard)
    shard, shards = map(int, args.shard.split("/"))
    for dataset, scenario, method in list(cells(args.dataset))[shard::shards]:
        chosen = tune(rows, dataset, scenario, method, args.shared)
        variants = [method]
        if scenario == "class" and method == "dlcft":
            variants += ABLATIONS
        for name in variants:
            for seed in SEEDS:
                rows.get(dataclasses.replace(chosen, method=name, seed=seed, evaluate_on="test"), args.shared)


Cell = dict[int, Mapping[str, Any]]


def rows_by_stream(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], Cell]:
    """Returns the rows of test streams: by dataset, scenario and method, then by seed."""
    results: dict[tuple[str, str, str], Cell] = {}
    for row in rows:
        run = Run(**row["run"])
        if run.evaluate_on == "test":
            results.setdefault((run.dataset, run.scenario, run.method), {})[run.seed] = row
    return results


def percent_text(values: Sequence[float | None], interval: Callable[[Sequence[float]], Interval] = t_interval) -> str:
    """Returns the mean of shares in percent with its interval over seeds, as text; "" if all values are None."""
    present = [value for value in values if value is not None]
    if not present:
        return ""
    mean = interval(present)
    if mean.low is None or mean.high is None:
        return f"{100 * mean.mean:.1f}"
    return f"{100 * mean.mean:.1f} [{100 * mean.low:.1f}, {100 * mean.high:.1f}]"


def table(results: Mapping[tuple[str, str, str], Cell], dataset: str, scenario: str) -> list[str]:
    """Returns the rows of the table of one dataset and scenario."""
    lines = []
    for method in (*COMPARED, *ABLATIONS):
        cell = results.get((dataset, scenario, method))
        if not cell:
            continue
        run = Run(**next(iter(cell.values()))["run"])
        accuracy = percent_text([row["average_accuracy"] for row in cell.values()], accuracy_interval)
        others = [percent_text([row[name] for row in cell.values()]) for name in ("forgetting", "forward_transfer")]
        seconds = float(np.median([row["seconds"] for row in cell.values()]))
        chosen = "" if method in UNTUNED else f"{run.rate:g}" + (f", x{run.strength:g}" if run.strength != 1.0 else "")
        lines.append(f"| {method} | {' | '.join((accuracy, *others))} | {chosen} | {seconds:.0f} |")
    return lines


def difference(results: Mapping[tuple[str, str, str], Cell], stream: tuple[str, str, str], other: str) -> Any:
    """Returns the paired interval of a method minus another method on the same streams; None below two seeds.

    Args:
        results: Rows of test streams.
        stream: Dataset, scenario and method.
        other: The other method.
    """
    a, b = results.get(stream, {}), results.get((*stream[:2], other), {})
    seeds = sorted(set(a) & set(b))
    if len(seeds) < 2:
        return None
    return paired_interval(*([100 * float(cell[seed]["average_accuracy"]) for seed in seeds] for cell in (a, b)))


def finding(results: Mapping[tuple[str, str, str], Cell]) -> str:
    """Returns a paragraph that states whether the claim is confirmed, with all differences."""
    gaps_by_kind: dict[str, list[str]] = {"above": [], "below": [], "open": []}
    probe_gaps = []
    for dataset, scenario, method in sorted(results):
        if method != "dlcft":
            continue
        gap = difference(results, (dataset, scenario, method), "ewc")
        if gap is not None:
            kind = "above" if gap.low > 0 else "below" if gap.high < 0 else "open"
            gaps_by_kind[kind].append(f"{dataset} {scenario} {gap.mean:+.1f} [{gap.low:.1f}, {gap.high:.1f}]")
        gap = difference(results, (dataset, scenario, method), "probe")
        if gap is not None:
            probe_gaps.append(f"{dataset} {scenario} {gap.mean:+.1f} [{gap.low:.1f}, {gap.high:.1f}]")
    total = sum(map(len, gaps_by_kind.values()))
    if not total:
        return "No stream has two seeds of both methods yet, so there is no result."
    verdict = {total: "confirmed", 0: "not confirmed"}.get(len(gaps_by_kind["above"]), "confirmed in part")
    titles = {"above": "DLCFT is above EWC", "below": "DLCFT is below EWC", "open": "The difference is not significant"}
    parts = [f"{titles[kind]} in {len(gaps)}: {'; '.join(gaps)}." for kind, gaps in gaps_by_kind.items() if gaps]
    return (
        f"The claim that DLCFT is above EWC is **{verdict}** on {total} streams (DLCFT minus EWC, points of average "
        f"accuracy, 95 % intervals over {len(SEEDS)} orders and seeds). {' '.join(parts)} DLCFT minus a linear probe, "
        f"which changes no feature: {'; '.join(probe_gaps)}."
    )


def draw(results: Mapping[tuple[str, str, str], Cell], path: Path) -> None:
    """Draws average accuracies, one panel per dataset and scenario."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    names = [d for d in TASKS if any(key[0] == d for key in results)]
    figure, axes = pyplot.subplots(
        len(names), len(SCENARIOS), figsize=(9, 2.2 * len(names)), sharex=True, squeeze=False, layout="constrained"
    )
    for row, dataset in zip(axes, names, strict=True):
        for axis, scenario in zip(row, SCENARIOS, strict=True):
            for position, method in enumerate(reversed(COMPARED)):
                values = [100 * r["average_accuracy"] for r in results.get((dataset, scenario, method), {}).values()]
                axis.plot(values, [position] * len(values), "o", color="C0" if method == "dlcft" else "0.45", alpha=0.7)
            axis.set_yticks(range(len(COMPARED)), list(reversed(COMPARED)) if scenario == SCENARIOS[0] else [])
            axis.set_title(f"{dataset}, {scenario}", fontsize=9)
            axis.grid(axis="x", alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("average accuracy, %")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def report(args: argparse.Namespace) -> None:
    """Writes tables, figure and finding of the stored rows."""
    rows = read(args.results)
    results = rows_by_stream(rows)
    lines = ["# Streams of tasks: DLCFT, EWC and other methods", "", finding(results), ""]
    lines += [
        f"{machine()}. Means over orders and seeds with 95 % intervals (Student's t), in %; `studies/continual.py`. "
        "Seconds are medians of wall-clock time on a machine with other load, on which some streams were paused. In "
        "the class-incremental rows of dlcft but *dlcft, random head*, classes still to come had rows of zeros in the "
        "head."
    ]
    heading = "| method | average accuracy | forgetting | forward transfer | rate, penalty | seconds |"
    for dataset, scenario in dict.fromkeys((key[0], key[1]) for key in results):
        tasks = TASKS[dataset][scenario]
        lines += ["", f"## {dataset}, {scenario}-incremental, {tasks} tasks of {EPOCHS[dataset]} epochs", ""]
        lines += [heading, "|---|---|---|---|---|---|", *table(results, dataset, scenario)]
    result = {
        "machine": machine(),
        "finding": finding(results),
        "streams": [
            {"dataset": d, "scenario": s, "method": m, "accuracies": [r["average_accuracy"] for r in cell.values()]}
            for (d, s, m), cell in results.items()
        ],
    }
    (args.results / "continual.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.results / "continual.md").write_text("\n".join(lines) + "\n")
    draw(results, args.results / "continual.svg")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="run the streams that are not stored yet")
    runner.add_argument("--shared", default="../shared", help="folder with data/ and weights/")
    runner.add_argument("--dataset", choices=TASKS, nargs="*", default=list(TASKS), help="datasets to run")
    add_shard_option(runner, "combination of dataset, scenario and method")
    runner.set_defaults(do=run)
    reporter = commands.add_parser("report", help="write the report of the stored streams")
    reporter.set_defaults(do=report)
    for command in (runner, reporter):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of the rows and the report")
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
