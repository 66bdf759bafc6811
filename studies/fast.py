"""Study: does FAST learn the target faster and forget the source more slowly than a random head?

The claim is that of Varno et al. (arXiv 2007.01388), whose recipe `nbt.transfer.fast` reconstructs: a zero head,
normalised features and a stall. Four arms start from the same pretrained weights and use the same batches:

- *random head*: the plain recipe, all layers at one learning rate;
- *FAST*: zero head, features normalised by batch statistics; only the head trains in the first 10 % of the steps;
- *probe, then tune*: a random head, trained alone in the first 10 or 30 % of the steps, then all layers;
- *10x head rate*: a random head with ten times the learning rate of the other layers.

Every arm is tuned with the same effort: three learning rates times two values of one further setting (warm-up of the
random heads, head rate of FAST, length of the probe), on another seed and another split, by the mean validation
accuracy over all steps. The best recipe then runs with at least five head seeds and is measured on the test images:
steps to 50, 80 and 95 % of the final accuracy of the random head; accuracy of the unchanged source head on raw
features; distance of the weights from w0; linear CKA between the features and those at w0.

- digits: `conv3` from digits 0-4 to 5-9; the source is digits 0-4.
- dtd10: `mobilenet_v2` from ImageNet to textures at 64 px; the source accuracy is that of its 1000-class head on the
  images of CUB-50 crop at 96 px, of the eight species that are classes of ImageNet.

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
FAST, RANDOM, PROBE, HIGH_HEAD_RATE = "FAST", "random head", "probe, then tune", "10x head rate"
ARMS = (FAST, RANDOM, PROBE, HIGH_HEAD_RATE)
TASKS = ("digits", "dtd10")
STEPS = {"digits": 200, "dtd10": 128}
BATCH = {"digits": 32, "dtd10": 24}
RATES = {"digits": (0.003, 0.01, 0.03), "dtd10": (0.0003, 0.001, 0.003)}
TUNING_SEED = 100
LEVELS = (0.5, 0.8, 0.95)
DRIFT_STEPS = (1, 10, 100)
EVALUATION_STEPS = (0, 1, 2, 3, 5, 7, 10, 14, 20, 28, 40, 56, 80, 100, 128, 160)
TUNING_EVALUATIONS = 8
SOURCE_PX = 96
SOURCE_IMAGES_PER_CLASS = 20
# Species of CUB-50 crop that are classes of ImageNet, with the names of these classes.
IMAGENET_NAMES = {
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
    """Source of a pretrained backbone: test images and the original head.

    Attributes:
        images: Normalised images, (N, 3, H, W).
        labels: Source classes, (N,).
        weight: Weight of the original head, (C, D).
        bias: Bias of the original head, (C,).
    """

    images: torch.Tensor
    labels: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def accuracy(self, features: torch.Tensor) -> float:
        """Returns the accuracy of the original head on raw features, (N, D)."""
        return float((F.linear(features, self.weight, self.bias).argmax(dim=1) == self.labels).float().mean())


@functools.cache
def load(name: str, shared: str) -> tuple[WorkerContext, Source]:
    """Returns the worker context of a task and its source."""
    root = Path(shared)
    if name == "digits":
        task = nbt.load_task("digits")
        listing = read_digits(source=True)
        pixels, _ = decode_images(listing.items, task.image_size, cache=False)
        return WorkerContext(task, device="cpu"), _source(task, np.asarray(pixels.array), listing.labels)
    weights = root / "weights" / "mobilenet_v2-imagenet.pth"
    task = nbt.load_task(root / "data" / "dtd10", backbone="mobilenet_v2", weights=weights, image_size=64)
    birds = nbt.load_task("cub", backbone="mobilenet_v2", weights=weights, data_dir=root / "data", image_size=SOURCE_PX)
    rows, labels = imagenet_birds(birds)
    return WorkerContext(task, device="cpu"), _source(task, np.asarray(birds.images.array[rows]), labels)


def imagenet_birds(birds: Task) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of images whose species is a class of ImageNet, and their ImageNet labels."""
    from torchvision.models import MobileNet_V2_Weights

    names = MobileNet_V2_Weights.DEFAULT.meta["categories"]
    rows, labels = [], []
    for species, name in IMAGENET_NAMES.items():
        species_rows = np.flatnonzero(birds.labels == birds.class_names.index(species))[:SOURCE_IMAGES_PER_CLASS]
        rows.append(species_rows)
        labels.append(np.full(len(species_rows), names.index(name)))
    return np.concatenate(rows), np.concatenate(labels)


def _source(task: Task, pixels: np.ndarray, labels: np.ndarray) -> Source:
    head = task.source_head
    assert head is not None
    images = augment_and_normalise(
        torch.from_numpy(pixels), AugmentationPlan(), torch.tensor(task.mean), torch.tensor(task.std)
    )
    return Source(images, torch.from_numpy(labels), head["head.weight"], head["head.bias"])


def candidates(arm: str, task: str) -> list[TransferSettings]:
    """Returns the recipes that an arm is tuned over; every arm has the same number."""
    return [_recipe(arm, rate, option, BATCH[task]) for rate in RATES[task] for option in (0, 1)]


def _recipe(arm: str, rate: float, option: int, batch: int) -> TransferSettings:
    """Returns a recipe of an arm.

    Args:
        arm: One of `ARMS`.
        rate: Learning rate.
        option: Index of the value of the arm's further setting, 0 or 1.
        batch: Batch size.
    """
    plain = TransferSettings(body_lr=rate, head_lr=rate, batch_size=batch, warmup=0.0)
    if arm == FAST:
        head_lr = rate * (1.0, 0.1)[option]
        return plain.replace(head_scale=0.0, feature_norm="batch", stall=0.1, head_lr=head_lr)
    if arm == PROBE:
        return plain.replace(stall=(0.1, 0.3)[option])
    warm = plain.replace(warmup=(0.0, 0.1)[option])
    return warm.replace(head_lr=10 * rate) if arm == HIGH_HEAD_RATE else warm


def describe(settings: TransferSettings) -> str:
    """Returns a short description of the tuned settings."""
    text = f"body {settings.body_lr:g}, head {settings.head_lr:g}"
    text += f", stall {settings.stall:g}" if settings.stall else ""
    return text + (f", warm-up {settings.warmup:g}" if settings.warmup else "")


StepCallback = Callable[[int, Backbone], None]


def train(
    context: WorkerContext, task: Task, settings: TransferSettings, steps: int, seed: int, callback: StepCallback
) -> None:
    """Trains with the library's components.

    Args:
        context: Worker context of the task.
        task: Task with the split to train on.
        settings: Recipe.
        steps: Number of training steps.
        seed: Seed of the head and of the batches.
        callback: Called with step number and model before every step and after the last step.
    """
    model, _ = context.prepare_model(settings, seed)
    groups = split_off_head(parameter_groups(model.units, model.head, settings), model.head)
    rates = [{"params": group.parameters, "lr": group.lr} for group in groups]
    optimizer = torch.optim.SGD(rates, momentum=settings.momentum, nesterov=True, fused=True)
    decay = L2SP(groups, {})
    stall_steps = round(settings.stall * steps)
    torch.manual_seed(seed)
    model.train()
    with ExitStack() as stall:
        if stall_steps:
            stall.enter_context(stalled(model.units))
        for step, (inputs, truth) in zip(range(steps), batches(context, task, settings, seed), strict=False):
            if step == stall_steps:
                stall.close()
            callback(step, model)
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), truth).backward()
            for group, parameter_group in zip(groups, optimizer.param_groups, strict=True):
                parameter_group["lr"] = group.lr * lr_factor(step, steps, settings.warmup)
            decay.add_to_gradients()
            optimizer.step()
        callback(steps, model)


def batches(
    context: WorkerContext, task: Task, settings: TransferSettings, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields an infinite sequence of augmented batches and labels, equal for all arms."""
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
            yield context.load_images(order[part], plan.rows(part)), context.labels[order[part]]


@contextmanager
def evaluating(model: Backbone) -> Iterator[None]:
    """Puts a model in evaluation mode and disables gradients inside the context."""
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


class RunRecorder:
    """Step callback that records accuracies, drift and CKA of a run at given steps.

    Args:
        context: Worker context of the task.
        source: Source of the backbone.
        task: Task whose test images are evaluated.
        steps: Steps to record.
    """

    def __init__(self, context: WorkerContext, source: Source, task: Task, steps: Sequence[int]) -> None:
        self.source, self.steps = source, set(steps)
        index = torch.from_numpy(task.split.test)
        self.images, self.labels = context.load_images(index, AugmentationPlan()), context.labels[index]
        self.points: list[dict[str, Any]] = []
        self.start: tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]] | None = None

    def __call__(self, step: int, model: Backbone) -> None:
        """Records the step if it is one of the given steps."""
        if step not in self.steps:
            return
        with evaluating(model):
            target, source = features_of(model, self.images), features_of(model, self.source.images)
            weights = [p.detach() for p in model.units.parameters()]
            if self.start is None:
                self.start = target, source, [w.clone() for w in weights]
            logits = model.classify_features(target)
            distance = math.sqrt(
                sum(float((w - v).square().sum()) for w, v in zip(weights, self.start[2], strict=True))
            )
            norm = math.sqrt(sum(float(v.square().sum()) for v in self.start[2]))
            self.points.append(
                {
                    "step": step,
                    "target": float((logits.argmax(dim=1) == self.labels).float().mean()),
                    "source": self.source.accuracy(source),
                    "drift": distance / norm,
                    "cka_target": _cka(target, self.start[0]),
                    "cka_source": _cka(source, self.start[1]),
                }
            )


def _cka(features: torch.Tensor, reference: torch.Tensor) -> float | None:
    return linear_cka(features.numpy(), reference.numpy()) if torch.isfinite(features).all() else None


def tune(name: str, arm: str, number: int, shared: str, steps: int) -> dict[str, Any]:
    """Returns the mean validation accuracy over all steps of recipe `number` of an arm."""
    context, _ = load(name, shared)
    task = context.task.with_split_seed(TUNING_SEED)
    index = torch.from_numpy(task.split.val)
    images, labels = context.load_images(index, AugmentationPlan()), context.labels[index]
    evaluated_steps = {round(steps * share) for share in np.linspace(0, 1, TUNING_EVALUATIONS + 1)}
    accuracies: list[float] = []

    def evaluate(step: int, model: Backbone) -> None:
        if step in evaluated_steps:
            with evaluating(model):
                logits = model.classify_features(features_of(model, images))
            accuracies.append(float((logits.argmax(dim=1) == labels).float().mean()))

    train(context, task, candidates(arm, name)[number], steps, TUNING_SEED, evaluate)
    return {"merit": float(np.mean(accuracies[1:])), "accuracies": accuracies}


def measure(name: str, arm: str, number: int, seed: int, shared: str, steps: int) -> dict[str, Any]:
    """Returns the recorded points of a run of recipe `number` of an arm."""
    context, source = load(name, shared)
    recorder = RunRecorder(
        context, source, context.task, sorted({*(step for step in EVALUATION_STEPS if step < steps), steps})
    )
    train(context, context.task, candidates(arm, name)[number], steps, seed, recorder)
    return {"points": recorder.points}


def run(args: argparse.Namespace) -> None:
    """Runs everything that is not stored yet; stores one row per run."""
    torch.set_num_threads(1)
    for name in args.task:
        steps = args.steps or STEPS[name]
        for arm in ARMS:
            for number in range(len(candidates(arm, name))):
                key = {"task": name, "arm": arm, "kind": "tune", "number": number, "seed": TUNING_SEED, "steps": steps}
                run_and_store(args.rows, key, functools.partial(tune, name, arm, number, args.shared, steps))
            chosen = choose(read(args.rows), name, arm)
            for seed in range(args.seeds):
                key = {"task": name, "arm": arm, "kind": "run", "number": chosen, "seed": seed, "steps": steps}
                run_and_store(args.rows, key, functools.partial(measure, name, arm, chosen, seed, args.shared, steps))


def run_and_store(path: Path, key: Mapping[str, Any], compute: Callable[[], dict[str, Any]]) -> None:
    """Computes a row and appends it to the file, unless the file has a row with this key."""
    if any(all(row[name] == value for name, value in key.items()) for row in read(path)):
        return
    started = time.perf_counter()
    row = {**key, **compute(), "seconds": round(time.perf_counter() - started, 1), "machine": machine()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(", ".join(str(value) for value in key.values()), f"{row['seconds']} s", flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the stored rows; none if the file does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def choose(rows: Sequence[Mapping[str, Any]], task: str, arm: str) -> int:
    """Returns the number of the recipe with the best mean validation accuracy in the tuning."""
    tuned = [row for row in rows if (row["task"], row["arm"], row["kind"]) == (task, arm, "tune")]
    return int(max(tuned, key=lambda row: row["merit"])["number"])


Points = Sequence[Mapping[str, Any]]


def first_at(points: Points, level: float) -> Mapping[str, Any] | None:
    """Returns the first point with a target accuracy of at least `level`, or None."""
    return next((point for point in points if point["target"] >= level), None)


def run_figures(points: Points, reference: float) -> dict[str, float | None]:
    """Returns the figures of one run by name; None for levels and steps that the run does not reach.

    Args:
        points: Recorded points of the run.
        reference: Final accuracy of the random head; the levels are shares of it.
    """
    last = points[-1]
    figures: dict[str, float | None] = {"target at the end": last["target"], "source at the end": last["source"]}
    for level in LEVELS:
        reached = first_at(points, level * reference)
        figures[f"steps to {level:.0%}"] = None if reached is None else reached["step"]
        figures[f"source at {level:.0%}"] = None if reached is None else reached["source"]
    for step in DRIFT_STEPS:
        point = next((point for point in points if point["step"] == step), None)
        for name in ("drift", "cka_target", "cka_source"):
            figures[f"{name} after {step}"] = None if point is None else point[name]
    return figures


def summarise(rows: Sequence[Mapping[str, Any]], task: str) -> dict[str, Any]:
    """Returns the figures of all arms of a task, and the paired differences of FAST to the other arms."""
    runs = {arm: {r["seed"]: r for r in rows if (r["task"], r["arm"], r["kind"]) == (task, arm, "run")} for arm in ARMS}
    reference = float(np.mean([run["points"][-1]["target"] for run in runs[RANDOM].values()]))
    figures = {arm: {seed: run_figures(row["points"], reference) for seed, row in runs[arm].items()} for arm in ARMS}
    steps = next(iter(runs[RANDOM].values()))["steps"]
    result: dict[str, Any] = {"reference": reference, "steps": steps, "seeds": len(runs[RANDOM]), "arms": {}}
    for arm in ARMS:
        number = next(iter(runs[arm].values()))["number"]
        names = next(iter(figures[arm].values()))
        values = {name: [of_run[name] for of_run in figures[arm].values()] for name in names}
        result["arms"][arm] = {
            "recipe": describe(candidates(arm, task)[number]),
            **{name: interval([v for v in column if v is not None], len(column)) for name, column in values.items()},
        }
    result["differences"] = {arm: differences(figures[FAST], figures[arm], steps) for arm in ARMS if arm != FAST}
    return result


def differences(
    fast: Mapping[int, Mapping[str, float | None]], other: Mapping[int, Mapping[str, float | None]], steps: int
) -> dict[str, Any]:
    """Returns 95 % intervals of FAST minus another arm over the seeds that both have, by figure.

    Steps are compared by the logarithm to base 2 of their ratio; a level that was never reached counts as reached at
    the last step.
    """
    seeds = sorted(set(fast) & set(other))
    result: dict[str, Any] = {}
    for name in ("target at the end", "source at the end", *(f"source at {level:.0%}" for level in LEVELS)):
        pairs = [(fast[seed][name], other[seed][name]) for seed in seeds]
        result[name] = interval([a - b for a, b in pairs if a is not None and b is not None], len(pairs))
    for level in LEVELS:
        name = f"steps to {level:.0%}"
        pairs = [(fast[seed][name], other[seed][name]) for seed in seeds]
        logs = [math.log2(max(1, steps if a is None else a) / max(1, steps if b is None else b)) for a, b in pairs]
        result[name] = interval(logs, len(pairs))
    return result


def interval(values: Sequence[float], runs: int) -> dict[str, Any]:
    """Returns mean, 95 % interval (Student's t), number of values, and number of runs."""
    if not values:
        return {"mean": None, "low": None, "high": None, "n": 0, "of": runs}
    mean = t_interval(values)
    return {"mean": mean.mean, "low": mean.low, "high": mean.high, "n": len(values), "of": runs}


def report(args: argparse.Namespace) -> None:
    """Writes tables, figure and finding of the stored rows."""
    rows = read(args.rows)
    tasks = [task for task in TASKS if all(_has(rows, task, arm) for arm in ARMS)]
    if not tasks:
        raise SystemExit(f"{args.rows} has no task with runs of all arms; run `python studies/fast.py run` first")
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
    """Returns a paragraph that states whether the claim is confirmed, confirmed in part or not confirmed."""
    sentences, verdicts = [], []
    for name, result in tasks.items():
        over_random = result["differences"][RANDOM]
        steps, source = over_random["steps to 80%"], over_random["source at 80%"]
        verdicts += [is_significant(steps, below=True), is_significant(source, below=False)]
        source_end, target_end = over_random["source at the end"], over_random["target at the end"]
        others = "; ".join(
            f"{ratio_text(difference['steps to 80%'])} and {points_text(difference['source at 80%'])} for *{arm}*"
            for arm, difference in result["differences"].items()
            if arm != RANDOM
        )
        sentences.append(
            f"On {name}, FAST takes {ratio_text(steps)} times the steps of the random head to 80 % of that head's "
            "final accuracy. The difference in source accuracy (FAST minus random head) is "
            f"{points_text(source)} points at this level and {points_text(source_end)} at the end; the difference in "
            f"target accuracy at the end is {points_text(target_end)}. Ratio of steps and difference in source "
            f"accuracy at 80 %, relative to the other arms: {others}."
        )
    verdict = "confirmed" if all(verdicts) else "confirmed in part" if any(verdicts) else "not confirmed"
    return (
        f"The claim that FAST learns faster and forgets more slowly than a random head is **{verdict}**. "
        + " ".join(sentences)
    )


def is_significant(difference: Mapping[str, Any], *, below: bool) -> bool:
    """Returns whether a 95 % interval lies below 0 or, without `below`, above 0."""
    if difference["low"] is None:
        return False
    return bool(difference["high"] < 0 if below else difference["low"] > 0)


def ratio_text(logs: Mapping[str, Any]) -> str:
    """Returns the mean and the interval of log2 ratios as ratios."""
    if logs["low"] is None:
        return "-"
    return f"{2 ** logs['mean']:.2f} [{2 ** logs['low']:.2f}, {2 ** logs['high']:.2f}]"


def points_text(difference: Mapping[str, Any]) -> str:
    """Returns a mean difference of accuracies and its interval in percentage points."""
    if difference["low"] is None:
        return "-"
    return f"{100 * difference['mean']:+.1f} [{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]"


def cell_text(figure: Mapping[str, Any], scale: float, digits: int) -> str:
    """Returns mean and interval, and the number of runs that have the value if not all do."""
    if figure["mean"] is None:
        return f"never ({figure['of']} runs)"
    ends = ""
    if figure["low"] is not None:
        ends = f" [{scale * figure['low']:.{digits}f}, {scale * figure['high']:.{digits}f}]"
    part = "" if figure["n"] == figure["of"] else f" ({figure['n']} of {figure['of']} runs)"
    return f"{scale * figure['mean']:.{digits}f}{ends}{part}"


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the finding and the tables as Markdown."""
    lines = ["# FAST against a random head", "", result["finding"], ""]
    lines.append(
        f"{result['machine']}; {result['seconds'] / 60:.0f} minutes in total. Means over head seeds with 95 % "
        "intervals (Student's t); accuracies in %. A level counts as reached at the first evaluated step that reaches "
        "it. Evaluated steps grow by a factor of about 1.4, so an interval has no width if all seeds reach the level "
        "at the same step. `studies/fast.py` describes the study."
    )
    lines.append("")
    for name, task in result["tasks"].items():
        lines += [f"## {name}", "", f"{task['seeds']} head seeds, {task['steps']} steps. The levels are shares of the "]
        lines[-1] += f"final accuracy of the random head, {100 * task['reference']:.1f} %."
        arms = task["arms"]
        lines += ["", "| | " + " | ".join(arms) + " |", "|---|" + "---|" * len(arms)]
        lines.append("| recipe | " + " | ".join(arm["recipe"] for arm in arms.values()) + " |")
        for row in (row for row in arms[FAST] if row != "recipe"):
            percent = row.startswith(("target", "source"))
            scale, digits = (100, 1) if percent else (1, 1) if row.startswith("steps") else (1, 3)
            cells = [cell_text(arm[row], scale, digits) for arm in arms.values()]
            lines.append(f"| {row.replace('cka_', 'CKA of the features of the ')} | " + " | ".join(cells) + " |")
        lines += [
            "",
            "FAST relative to the other arms, paired by seed: ratio of steps, difference in points of accuracy.",
            "",
        ]
        differences_by_arm = task["differences"]
        lines += ["| | " + " | ".join(differences_by_arm) + " |", "|---|" + "---|" * len(differences_by_arm)]
        for row in differences_by_arm[RANDOM]:
            show = ratio_text if row.startswith("steps") else points_text
            lines.append(
                f"| {row} | " + " | ".join(show(difference[row]) for difference in differences_by_arm.values()) + " |"
            )
        lines.append("")
    return "\n".join(lines)


def draw(rows: Sequence[Mapping[str, Any]], tasks: Sequence[str], path: Path) -> None:
    """Draws target accuracy by step, and source accuracy by target accuracy, one curve per arm."""
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
    runner = commands.add_parser("run", help="run everything that is not stored yet")
    runner.add_argument("--shared", default="../shared", help="folder with data/ and weights/")
    runner.add_argument("--task", choices=TASKS, nargs="*", default=list(TASKS), help="tasks to run")
    runner.add_argument("--seeds", type=int, default=5, help="number of head seeds")
    runner.add_argument("--steps", type=int, help="training steps of every run; default: 200 for digits, 128 for dtd10")
    runner.set_defaults(do=run)
    reporter = commands.add_parser("report", help="write the report of the stored rows")
    reporter.set_defaults(do=report)
    for command in (runner, reporter):
        command.add_argument("--rows", type=Path, default=RESULTS / "fast.jsonl", help="file of the rows")
    args = parser.parse_args()
    do: Callable[[argparse.Namespace], None] = args.do
    do(args)


if __name__ == "__main__":
    main()
