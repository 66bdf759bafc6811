"""Study: does FAST learn the target faster and forget the source slower?

The claim of Varno et al. (arXiv 2007.01388), whose recipe `nbt.transfer.fast` reconstructs: a zero head, normalised
features and a stall. Four arms start from the same pretrained weights and see the same batches:

- *random head*: the plain recipe, all layers at one rate;
- *FAST*: zero head, features normalised by batch statistics, the head alone for the first 10 % of the steps;
- *probe, then tune*: a random head, alone for the first 10 or 30 % of the steps, then everything;
- *10x head rate*: a random head that learns ten times as fast as the rest.

Every arm is tuned with the same effort: three rates times two values of one more setting of its own (warm-up of the
random heads, head rate of FAST, length of the probe), on another seed and another split, by the mean validation
accuracy over all steps. Then it is run with at least five head seeds and looked at on the test images: steps to 50, 80
and 95 % of the final accuracy of the random head; accuracy of the untouched source head on raw features; distance from
w0; linear CKA of features with those at w0.

- digits: `conv3` from digits 0-4 to 5-9; the source is digits 0-4.
- dtd10: `mobilenet_v2` from ImageNet to textures at 64 px; the source is what its 1000-way head says of CUB-50 crop at
  96 px, of the eight species that are classes of ImageNet.

    python studies/fast.py run --shared ../shared              # resumable; about 30 minutes on one core
    python studies/fast.py run --shared ../shared --task digits
    python studies/fast.py report

Results: `studies/results/fast.{jsonl,json,md,svg}`.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from machine import machine

import nbt
from nbt.data.image_store import decode_images
from nbt.data.readers.digits import read_digits
from nbt.fit import linear_cka
from nbt.models.backbone import Backbone
from nbt.seeds import generator
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.recipe.augmentation import AugmentationPlan, augment_and_normalise, draw_augmentation_plan
from nbt.training.recipe.lr_schedule import lr_factor
from nbt.training.recipe.stall import split_off_head
from nbt.training.worker.context import WorkerContext
from nbt.transfer.fast import stalled
from nbt.transfer.l2sp import L2SP
from nbt.transfer.layer_lr import parameter_groups
from nbt.tuning.intervals import t_interval

RESULTS = Path(__file__).parent / "results"
FAST, RANDOM, PROBE, TEN = "FAST", "random head", "probe, then tune", "10x head rate"
ARMS = (FAST, RANDOM, PROBE, TEN)
TASKS = ("digits", "dtd10")
STEPS = {"digits": 200, "dtd10": 128}
BATCH = {"digits": 32, "dtd10": 24}
RATES = {"digits": (0.003, 0.01, 0.03), "dtd10": (0.0003, 0.001, 0.003)}
TUNING_SEED = 100
LEVELS = (0.5, 0.8, 0.95)
MOMENTS = (1, 10, 100)
LOOKS = (0, 1, 2, 3, 5, 7, 10, 14, 20, 28, 40, 56, 80, 100, 128, 160)
TUNING_LOOKS = 8
SOURCE_PX = 96
SOURCE_IMAGES_A_CLASS = 20
# Species of CUB-50 crop and the class of ImageNet that they are.
KNOWN = {
    "001.Black_footed_Albatross": "albatross",
    "004.Indigo_Bunting": "indigo bunting",
    "011.American_Goldfinch": "goldfinch",
    "018.Anna_Hummingbird": "hummingbird",
    "019.Rufous_Hummingbird": "hummingbird",
    "020.Blue_Jay": "jay",
    "026.Red_breasted_Merganser": "red-breasted merganser",
    "030.White_Pelican": "pelican",
}


@dataclass(frozen=True, eq=False)
class Source:
    """What a backbone knew: images of the source, ready for it, and the head that it came with."""

    images: torch.Tensor
    labels: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def accuracy(self, features: torch.Tensor) -> float:
        """Returns the share of the images that the source's head still knows by raw features."""
        return float((F.linear(features, self.weight, self.bias).argmax(dim=1) == self.labels).float().mean())


@functools.cache
def load(name: str, shared: str) -> tuple[WorkerContext, Source]:
    """Returns a task's tools and its source."""
    root = Path(shared)
    if name == "digits":
        task = nbt.load_task("digits")
        listing = read_digits(source=True)
        pixels, _ = decode_images(listing.items, task.image_size, cache=False)
        return WorkerContext(task, device="cpu"), _source(task, np.asarray(pixels.array), listing.labels)
    weights = root / "weights" / "mobilenet_v2-imagenet.pth"
    task = nbt.load_task(root / "data" / "dtd10", backbone="mobilenet_v2", weights=weights, image_size=64)
    birds = nbt.load_task("cub", backbone="mobilenet_v2", weights=weights, data_dir=root / "data", image_size=SOURCE_PX)
    rows, labels = known_birds(birds)
    return WorkerContext(task, device="cpu"), _source(task, np.asarray(birds.images.array[rows]), labels)


def known_birds(birds: Task) -> tuple[np.ndarray, np.ndarray]:
    """Returns images of the species that ImageNet has, and ImageNet's labels of them."""
    from torchvision.models import MobileNet_V2_Weights

    names = MobileNet_V2_Weights.DEFAULT.meta["categories"]
    rows, labels = [], []
    for species, name in KNOWN.items():
        found = np.flatnonzero(birds.labels == birds.class_names.index(species))[:SOURCE_IMAGES_A_CLASS]
        rows.append(found)
        labels.append(np.full(len(found), names.index(name)))
    return np.concatenate(rows), np.concatenate(labels)


def _source(task: Task, pixels: np.ndarray, labels: np.ndarray) -> Source:
    head = task.source_head
    assert head is not None
    images = augment_and_normalise(
        torch.from_numpy(pixels), AugmentationPlan(), torch.tensor(task.mean), torch.tensor(task.std)
    )
    return Source(images, torch.from_numpy(labels), head["head.weight"], head["head.bias"])


def candidates(arm: str, task: str) -> list[TransferSettings]:
    """Returns the recipes that an arm is tuned over: as many for each."""
    return [_recipe(arm, rate, second, BATCH[task]) for rate in RATES[task] for second in (0, 1)]


def _recipe(arm: str, rate: float, second: int, batch: int) -> TransferSettings:
    plain = TransferSettings(body_lr=rate, head_lr=rate, batch_size=batch, warmup=0.0)
    if arm == FAST:
        head_lr = rate * (1.0, 0.1)[second]
        return plain.replace(head_scale=0.0, feature_norm="batch", stall=0.1, head_lr=head_lr)
    if arm == PROBE:
        return plain.replace(stall=(0.1, 0.3)[second])
    warm = plain.replace(warmup=(0.0, 0.1)[second])
    return warm.replace(head_lr=10 * rate) if arm == TEN else warm


def describe(settings: TransferSettings) -> str:
    """Returns what was chosen, in a few words."""
    words = f"body {settings.body_lr:g}, head {settings.head_lr:g}"
    words += f", stall {settings.stall:g}" if settings.stall else ""
    return words + (f", warm-up {settings.warmup:g}" if settings.warmup else "")


Look = Callable[[int, Backbone], None]


def train(bench: WorkerContext, task: Task, settings: TransferSettings, steps: int, seed: int, look: Look) -> None:
    """Trains for some steps, with the library's own parts; `look(step, model)` is called before each and at the end."""
    model, _ = bench.prepare_model(settings, seed)
    groups = split_off_head(parameter_groups(model.units, model.head, settings), model.head)
    rates = [{"params": group.parameters, "lr": group.lr} for group in groups]
    optimizer = torch.optim.SGD(rates, momentum=settings.momentum, nesterov=True, fused=True)
    pull = L2SP(groups, {})
    stall_steps = round(settings.stall * steps)
    torch.manual_seed(seed)
    model.train()
    with ExitStack() as stall:
        if stall_steps:
            stall.enter_context(stalled(model.units))
        for step, (inputs, truth) in zip(range(steps), batches(bench, task, settings, seed), strict=False):
            if step == stall_steps:
                stall.close()
            look(step, model)
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), truth).backward()
            for group, part in zip(groups, optimizer.param_groups, strict=True):
                part["lr"] = group.lr * lr_factor(step, steps, settings.warmup)
            pull.add_to_gradients()
            optimizer.step()
        look(steps, model)


def batches(
    bench: WorkerContext, task: Task, settings: TransferSettings, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields augmented batches for ever; the same ones for every arm."""
    train_images = torch.from_numpy(task.split.train)
    epoch = 0
    while True:
        epoch += 1
        order = train_images[torch.randperm(len(train_images), generator=generator(seed, "order", epoch))]
        plan = draw_augmentation_plan(
            settings.augmentation, len(order), generator(seed, "augment", epoch), mirror=task.mirror
        )
        count = len(order) // settings.batch_size
        for part in torch.arange(len(order)).tensor_split(count):
            yield bench.load_images(order[part], plan.rows(part)), bench.labels[order[part]]


@contextmanager
def evaluating(model: Backbone) -> Iterator[None]:
    """Puts a model in evaluation mode for a while, without gradients."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def features_of(model: Backbone, images: torch.Tensor) -> torch.Tensor:
    """Returns raw features, (N, D)."""
    return torch.cat([model.features(part) for part in images.split(64)])


class Watch:
    """Notes what there is to see of a run at some of its steps."""

    def __init__(self, bench: WorkerContext, source: Source, task: Task, looks: Sequence[int]) -> None:
        self.source, self.looks = source, set(looks)
        index = torch.from_numpy(task.split.test)
        self.images, self.labels = bench.load_images(index, AugmentationPlan()), bench.labels[index]
        self.points: list[dict[str, Any]] = []
        self.start: tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]] | None = None

    def __call__(self, step: int, model: Backbone) -> None:
        """Looks, if the step is one to look at."""
        if step not in self.looks:
            return
        with evaluating(model):
            target, source = features_of(model, self.images), features_of(model, self.source.images)
            weights = [p.detach() for p in model.units.parameters()]
            if self.start is None:
                self.start = target, source, [w.clone() for w in weights]
            logits = model.classify_features(target)
            moved = math.sqrt(sum(float((w - v).square().sum()) for w, v in zip(weights, self.start[2], strict=True)))
            length = math.sqrt(sum(float(v.square().sum()) for v in self.start[2]))
            self.points.append(
                {
                    "step": step,
                    "target": float((logits.argmax(dim=1) == self.labels).float().mean()),
                    "source": self.source.accuracy(source),
                    "drift": moved / length,
                    "cka_target": _cka(target, self.start[0]),
                    "cka_source": _cka(source, self.start[1]),
                }
            )


def _cka(one: torch.Tensor, other: torch.Tensor) -> float | None:
    return linear_cka(one.numpy(), other.numpy()) if torch.isfinite(one).all() else None


def tune(name: str, arm: str, number: int, shared: str, steps: int) -> dict[str, Any]:
    """Returns the mean validation accuracy over all steps of one of an arm's recipes."""
    bench, _ = load(name, shared)
    task = bench.task.with_split_seed(TUNING_SEED)
    index = torch.from_numpy(task.split.val)
    images, labels = bench.load_images(index, AugmentationPlan()), bench.labels[index]
    looks = {round(steps * share) for share in np.linspace(0, 1, TUNING_LOOKS + 1)}
    seen: list[float] = []

    def look(step: int, model: Backbone) -> None:
        if step in looks:
            with evaluating(model):
                logits = model.classify_features(features_of(model, images))
            seen.append(float((logits.argmax(dim=1) == labels).float().mean()))

    train(bench, task, candidates(arm, name)[number], steps, TUNING_SEED, look)
    return {"merit": float(np.mean(seen[1:])), "accuracies": seen}


def measure(name: str, arm: str, number: int, seed: int, shared: str, steps: int) -> dict[str, Any]:
    """Returns what was seen of a run of an arm's chosen recipe."""
    bench, source = load(name, shared)
    watch = Watch(bench, source, bench.task, sorted({*(step for step in LOOKS if step < steps), steps}))
    train(bench, bench.task, candidates(arm, name)[number], steps, seed, watch)
    return {"points": watch.points}


def run(args: argparse.Namespace) -> None:
    """Runs what is missing, a row each."""
    torch.set_num_threads(1)
    for name in args.task:
        steps = args.steps or STEPS[name]
        for arm in ARMS:
            for number in range(len(candidates(arm, name))):
                key = {"task": name, "arm": arm, "kind": "tune", "number": number, "seed": TUNING_SEED, "steps": steps}
                keep(args.rows, key, functools.partial(tune, name, arm, number, args.shared, steps))
            chosen = choose(read(args.rows), name, arm)
            for seed in range(args.seeds):
                key = {"task": name, "arm": arm, "kind": "run", "number": chosen, "seed": seed, "steps": steps}
                keep(args.rows, key, functools.partial(measure, name, arm, chosen, seed, args.shared, steps))


def keep(path: Path, key: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> None:
    """Makes a row and writes it, unless it is there."""
    if any(all(row[name] == value for name, value in key.items()) for row in read(path)):
        return
    started = time.perf_counter()
    row = {**key, **make(), "seconds": round(time.perf_counter() - started, 1), "machine": machine()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(", ".join(str(value) for value in key.values()), f"{row['seconds']} s", flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the rows that there are."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def choose(rows: Sequence[Mapping[str, Any]], task: str, arm: str) -> int:
    """Returns the number of the recipe that was best in tuning."""
    tuned = [row for row in rows if (row["task"], row["arm"], row["kind"]) == (task, arm, "tune")]
    return int(max(tuned, key=lambda row: row["merit"])["number"])


Points = Sequence[Mapping[str, Any]]


def first_at(points: Points, level: float) -> Mapping[str, Any] | None:
    """Returns the first point with a target accuracy of `level` or more; None where there is none."""
    return next((point for point in points if point["target"] >= level), None)


def facts_of(points: Points, reference: float) -> dict[str, float | None]:
    """Returns the figures of one run.

    Args:
        points: What was seen of it.
        reference: Final accuracy that the levels are shares of.
    """
    last = points[-1]
    facts: dict[str, float | None] = {"target at the end": last["target"], "source at the end": last["source"]}
    for level in LEVELS:
        found = first_at(points, level * reference)
        facts[f"steps to {level:.0%}"] = None if found is None else found["step"]
        facts[f"source at {level:.0%}"] = None if found is None else found["source"]
    for moment in MOMENTS:
        point = next((point for point in points if point["step"] == moment), None)
        for what in ("drift", "cka_target", "cka_source"):
            facts[f"{what} after {moment}"] = None if point is None else point[what]
    return facts


def summarise(rows: Sequence[Mapping[str, Any]], task: str) -> dict[str, Any]:
    """Returns the figures of all arms of a task, and FAST's differences to the others, seed by seed."""
    runs = {arm: {r["seed"]: r for r in rows if (r["task"], r["arm"], r["kind"]) == (task, arm, "run")} for arm in ARMS}
    reference = float(np.mean([run["points"][-1]["target"] for run in runs[RANDOM].values()]))
    facts = {arm: {seed: facts_of(row["points"], reference) for seed, row in runs[arm].items()} for arm in ARMS}
    steps = next(iter(runs[RANDOM].values()))["steps"]
    result: dict[str, Any] = {"reference": reference, "steps": steps, "seeds": len(runs[RANDOM]), "arms": {}}
    for arm in ARMS:
        number = next(iter(runs[arm].values()))["number"]
        names = next(iter(facts[arm].values()))
        values = {name: [one[name] for one in facts[arm].values()] for name in names}
        result["arms"][arm] = {
            "recipe": describe(candidates(arm, task)[number]),
            **{name: interval([v for v in found if v is not None], len(found)) for name, found in values.items()},
        }
    result["differences"] = {arm: differences(facts[FAST], facts[arm], steps) for arm in ARMS if arm != FAST}
    return result


def differences(
    fast: Mapping[int, Mapping[str, float | None]], other: Mapping[int, Mapping[str, float | None]], steps: int
) -> dict[str, Any]:
    """Returns 95 % intervals of FAST minus another arm over the seeds that both have.

    Steps are compared by the logarithm to base 2; a level that was never reached counts as reached at the end.
    """
    seeds = sorted(set(fast) & set(other))
    found: dict[str, Any] = {}
    for name in ("target at the end", "source at the end", *(f"source at {level:.0%}" for level in LEVELS)):
        pairs = [(fast[seed][name], other[seed][name]) for seed in seeds]
        found[name] = interval([a - b for a, b in pairs if a is not None and b is not None], len(pairs))
    for level in LEVELS:
        name = f"steps to {level:.0%}"
        pairs = [(fast[seed][name], other[seed][name]) for seed in seeds]
        logs = [math.log2(max(1, steps if a is None else a) / max(1, steps if b is None else b)) for a, b in pairs]
        found[name] = interval(logs, len(pairs))
    return found


def interval(values: Sequence[float], runs: int) -> dict[str, Any]:
    """Returns mean, 95 % interval by Student's t, and of how many runs."""
    if not values:
        return {"mean": None, "low": None, "high": None, "n": 0, "of": runs}
    made = t_interval(values)
    return {"mean": made.mean, "low": made.low, "high": made.high, "n": len(values), "of": runs}


def report(args: argparse.Namespace) -> None:
    """Writes table, figure and finding of what has been run."""
    rows = read(args.rows)
    tasks = [task for task in TASKS if all(_has(rows, task, arm) for arm in ARMS)]
    if not tasks:
        raise SystemExit(f"{args.rows}: no task has runs of all arms yet")
    result = {
        "machine": rows[-1]["machine"],
        "seconds": round(sum(row["seconds"] for row in rows)),
        "tasks": {task: summarise(rows, task) for task in tasks},
    }
    result["finding"] = finding(result["tasks"])
    args.rows.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    args.rows.with_suffix(".md").write_text(markdown(result), encoding="utf-8")
    draw(rows, tasks, args.rows.with_suffix(".svg"))
    print(result["finding"])


def _has(rows: Sequence[Mapping[str, Any]], task: str, arm: str) -> bool:
    return any((row["task"], row["arm"], row["kind"]) == (task, arm, "run") for row in rows)


def finding(tasks: Mapping[str, Any]) -> str:
    """Returns one paragraph: is the claim confirmed, partly, or not?"""
    sentences, verdicts = [], []
    for name, result in tasks.items():
        against = result["differences"][RANDOM]
        faster, kept = against["steps to 80%"], against["source at 80%"]
        verdicts += [clear(faster, below=True), clear(kept, below=False)]
        end = against["source at the end"]
        others = "; ".join(
            f"against {arm} {power(found['steps to 80%'])} and {points(found['source at 80%'])}"
            for arm, found in result["differences"].items()
            if arm != RANDOM
        )
        sentences.append(
            f"On {name} FAST took {power(faster)} times the random head's steps to 80 % of its final accuracy, where "
            f"the source accuracy was {points(kept)} points above its ({points(end)} at the end, target "
            f"{points(against['target at the end'])}); {others}."
        )
    verdict = "confirmed" if all(verdicts) else "partly confirmed" if any(verdicts) else "not confirmed here"
    return f"Learns faster and forgets slower than a random head: **{verdict}**. " + " ".join(sentences)


def clear(difference: Mapping[str, Any], *, below: bool) -> bool:
    """Tells whether a 95 % interval lies on one side of 0."""
    if difference["low"] is None:
        return False
    return bool(difference["high"] < 0 if below else difference["low"] > 0)


def power(of: Mapping[str, Any]) -> str:
    """Returns a mean log2 ratio and its interval as a ratio."""
    if of["low"] is None:
        return "-"
    return f"{2 ** of['mean']:.2f} [{2 ** of['low']:.2f}, {2 ** of['high']:.2f}]"


def points(of: Mapping[str, Any]) -> str:
    """Returns a mean difference of accuracies and its interval in percentage points."""
    if of["low"] is None:
        return "-"
    return f"{100 * of['mean']:+.1f} [{100 * of['low']:+.1f}, {100 * of['high']:+.1f}]"


def cell(of: Mapping[str, Any], scale: float, digits: int) -> str:
    """Returns mean and interval, and how many runs had the value where not all did."""
    if of["mean"] is None:
        return f"never ({of['of']} runs)"
    ends = "" if of["low"] is None else f" [{scale * of['low']:.{digits}f}, {scale * of['high']:.{digits}f}]"
    part = "" if of["n"] == of["of"] else f" ({of['n']} of {of['of']} runs)"
    return f"{scale * of['mean']:.{digits}f}{ends}{part}"


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the tables."""
    lines = ["# FAST against a random head", "", result["finding"], ""]
    lines.append(
        f"{result['machine']}; {result['seconds'] / 60:.0f} minutes in all. Means over head seeds with 95 % intervals "
        "(Student's t); accuracies in %. A level counts as reached at the first step looked at that has it, each about "
        "1.4 times the one before; seeds that agree on it give an interval of no width. `studies/fast.py` says what is "
        "run."
    )
    lines.append("")
    for name, task in result["tasks"].items():
        lines += [f"## {name}", "", f"{task['seeds']} head seeds, {task['steps']} steps; the random head ends at "]
        lines[-1] += f"{100 * task['reference']:.1f} %, of which the levels are shares."
        arms = task["arms"]
        lines += ["", "| | " + " | ".join(arms) + " |", "|---|" + "---|" * len(arms)]
        lines.append("| recipe | " + " | ".join(arm["recipe"] for arm in arms.values()) + " |")
        for row in (row for row in arms[FAST] if row != "recipe"):
            percent = row.startswith(("target", "source"))
            scale, digits = (100, 1) if percent else (1, 1) if row.startswith("steps") else (1, 3)
            cells = [cell(arm[row], scale, digits) for arm in arms.values()]
            lines.append(f"| {row.replace('_', ' of features of the ')} | " + " | ".join(cells) + " |")
        lines += ["", "FAST minus the other, seed by seed: ratio of steps, points of accuracy.", ""]
        found = task["differences"]
        lines += ["| | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
        for row in found[RANDOM]:
            show = power if row.startswith("steps") else points
            lines.append(f"| {row} | " + " | ".join(show(difference[row]) for difference in found.values()) + " |")
        lines.append("")
    return "\n".join(lines)


def draw(rows: Sequence[Mapping[str, Any]], tasks: Sequence[str], path: Path) -> None:
    """Draws target accuracy by step, and source accuracy against target accuracy, a curve an arm."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fast", "font.size": 9}):
        figure = Figure(figsize=(9, 3.4 * len(tasks)), layout="constrained")
        axes = figure.subplots(len(tasks), 2, squeeze=False)
        for (by_step, by_target), task in zip(axes, tasks, strict=True):
            for arm in ARMS:
                runs = [r["points"] for r in rows if (r["task"], r["arm"], r["kind"]) == (task, arm, "run")]
                steps = [point["step"] for point in runs[0]]
                target = 100 * np.array([[point["target"] for point in run] for run in runs])
                source = 100 * np.array([[point["source"] for point in run] for run in runs])
                (line,) = by_step.plot(steps, target.mean(axis=0), label=arm)
                by_step.fill_between(steps, target.min(axis=0), target.max(axis=0), color=line.get_color(), alpha=0.15)
                by_target.plot(target.mean(axis=0), source.mean(axis=0), marker=".", color=line.get_color())
            by_step.set(xscale="symlog", xlabel="steps", ylabel="target accuracy (%)", title=task)
            by_target.set(xlabel="target accuracy (%)", ylabel="source accuracy (%)", title=task)
        axes[0][0].legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--shared", default="../shared", help="folder with data and weights")
    runner.add_argument("--task", choices=TASKS, nargs="*", default=list(TASKS))
    runner.add_argument("--seeds", type=int, default=5, help="head seeds")
    runner.add_argument("--steps", type=int, help="of every run, in place of each task's own number")
    runner.set_defaults(do=run)
    reporter = commands.add_parser("report")
    reporter.set_defaults(do=report)
    for command in (runner, reporter):
        command.add_argument("--rows", type=Path, default=RESULTS / "fast.jsonl")
    args = parser.parse_args()
    do: Callable[[argparse.Namespace], None] = args.do
    do(args)


if __name__ == "__main__":
    main()
