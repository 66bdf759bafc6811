"""Benchmark: speed of one trial.

Compares nbt's training with a typical plain loop (DataLoader, PIL decoding, L2-SP as a loss term, default memory
format) on real images, on one machine. The arms are interleaved: every round runs one epoch of each arm, so that other
load on the machine affects all arms. Reported are medians over rounds, and ratios of medians.

    python studies/bench_training.py --data-dir ../shared/data --weights ../shared/weights/mobilenet_v2-imagenet.pth

Writes `studies/results/bench_training.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from machine import machine
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import nbt
from nbt.data.registry import read_dataset
from nbt.data.resolve import resolve
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.fine_tune import fine_tune
from nbt.training.worker.context import WorkerContext
from nbt.transfer import L2SP, parameter_groups

VIEWS = 4


class PlainImages(Dataset[tuple[torch.Tensor, int]]):
    """Images of the plain loop: every access decodes the file."""

    def __init__(self, files: list[Path], labels: list[int], size: int) -> None:
        from torchvision import transforms as t

        self.files, self.labels = files, labels
        self.transform = t.Compose(
            [
                t.RandomResizedCrop(size, scale=(0.5, 1.0)),
                t.RandomHorizontalFlip(),
                t.ToTensor(),
                t.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.files[index]) as image:
            return self.transform(image.convert("RGB")), self.labels[index]


def plain_epochs(files: list[Path], labels: list[int], args: argparse.Namespace, workers: int) -> Iterator[float]:
    """Yields the seconds of consecutive epochs of the plain loop."""
    model = torchvision.models.mobilenet_v2()
    model.load_state_dict(torch.load(args.weights, weights_only=True))
    model.classifier[1] = torch.nn.Linear(model.last_channel, len(set(labels)))
    w0 = {n: p.detach().clone() for n, p in model.named_parameters() if not n.startswith("classifier")}
    images = PlainImages(files, labels, args.image_size)
    loader = DataLoader(images, args.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    model.train()
    while True:
        started = time.perf_counter()
        for inputs, truth in loader:
            loss = F.cross_entropy(model(inputs), truth)
            penalty = sum((p - w0[n]).square().sum() for n, p in model.named_parameters() if n in w0)
            loss = loss + 0.005 * penalty
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield time.perf_counter() - started


def nbt_epochs(task: Task, frozen: float, args: argparse.Namespace) -> Iterator[float]:
    """Yields the seconds of consecutive epochs of `fine_tune` with the same recipe."""
    settings = TransferSettings(
        frozen_depth=frozen, sp_mix=1.0, decay_strength=0.01, batch_size=args.batch, views=VIEWS, epochs=10_000
    )
    for epoch in fine_tune(task, settings, context=WorkerContext(task)):
        yield epoch.seconds


def measure_epochs(task: Task, args: argparse.Namespace) -> dict[str, list[float]]:
    """Runs all arms interleaved, and returns the seconds of every epoch of each arm."""
    listing = read_dataset(resolve("cub", args.data_dir))
    train = task.split.train
    files, labels = [listing.items[i] for i in train], [int(task.labels[i]) for i in train]
    arms = {
        "plain loop, 2 loader processes": plain_epochs(files, labels, args, 2),
        "plain loop, no loader process": plain_epochs(files, labels, args, 0),
        "full fine-tuning": nbt_epochs(task, 0.0, args),
        "frozen_depth 10 of 19 units": nbt_epochs(task, 10 / 19, args),
        "everything frozen": nbt_epochs(task, 1.0, args),
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(VIEWS + args.rounds):
        for name, arm in arms.items():
            # Only the arms with frozen units compute features in the first epochs, one epoch per view.
            if number >= VIEWS or "frozen" in name:
                seconds[name].append(next(arm))
        print(f"round {number + 1}: " + ", ".join(f"{n} {s[-1]:.2f}" for n, s in seconds.items() if s), flush=True)
    return seconds


def epoch_rows(seconds: dict[str, list[float]], n_images: int, trial_epochs: int) -> list[dict[str, Any]]:
    """Returns one row per arm.

    Args:
        seconds: Seconds of every epoch, by arm. The first `VIEWS` epochs of the arms with frozen units fill the cache.
        n_images: Training images per epoch.
        trial_epochs: Epochs of a complete trial.

    Returns:
        Images per second with all views cached, the speed relative to the faster plain loop, and the same over a
        complete trial that computes the features of every view first.
    """
    steady = {
        name: statistics.median(values[-len(values) + (VIEWS if "frozen" in name else 0) :])
        for name, values in seconds.items()
    }
    plain = min(value for name, value in steady.items() if name.startswith("plain"))
    rows = []
    for name, values in seconds.items():
        cache_filling = sum(values[:VIEWS]) if "frozen" in name else VIEWS * steady[name]
        trial_mean = (cache_filling + (trial_epochs - VIEWS) * steady[name]) / trial_epochs
        rows.append(
            {
                "arm": name,
                "images_per_second": n_images / steady[name],
                "ratio": plain / steady[name],
                "ratio_whole_trial": plain / trial_mean,
            }
        )
    return rows


def measure_step(task: Task, args: argparse.Namespace) -> dict[str, float]:
    """Returns the median seconds of a training step with plain SGD (weight decay in the optimiser) and with L2-SP."""
    arms = {}
    for name in ("plain SGD", "L2-SP"):
        context = WorkerContext(task)
        mix = 1.0 if name == "L2-SP" else 0.0
        settings = TransferSettings(sp_mix=mix, decay_strength=0.01)
        model, _ = context.prepare_model(settings, 0)
        groups = parameter_groups(model.units, model.head, settings)
        names = dict(model.named_parameters())
        penalty = L2SP(groups, {names[n]: w for n, w in context.w0.items() if n in names}) if mix else None
        decay = 0.0 if mix else settings.decay_strength
        optimizer = torch.optim.SGD(
            [p for g in groups for p in g.parameters],
            lr=1e-4,
            momentum=0.9,
            nesterov=True,
            weight_decay=decay,
            fused=True,
        )
        arms[name] = (model.train(), optimizer, penalty)
    inputs = torch.randn(16, 3, 64, 64).to(memory_format=torch.channels_last)
    truth = torch.randint(0, task.n_classes, (16,))
    times: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(20 + args.steps):
        for name, (model, optimizer, penalty) in arms.items():
            started = time.perf_counter()
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), truth).backward()
            if penalty is not None:
                penalty.add_to_gradients()
            optimizer.step()
            if number >= 20:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def measure_set_up(task: Task) -> dict[str, float]:
    """Returns the median set-up time in seconds of a trial in a warm worker, before its first step."""
    context = WorkerContext(task)
    cases = {"all units transferred": 1.0, "half of the units re-initialised": 0.5}
    times: dict[str, list[float]] = {name: [] for name in cases}
    all_images_task = task.train_on_all()
    for number in range(11):
        for name, transfer_depth in cases.items():
            settings = TransferSettings(
                transfer_depth=transfer_depth, frozen_depth=0.5 * transfer_depth, epochs=1, batch_size=256
            )
            trial = fine_tune(all_images_task, settings, number, context=context)
            try:
                next(trial)
                trial.send(True)
            except StopIteration as end:
                times[name].append(end.value.setup_seconds)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def to_markdown(result: dict[str, Any]) -> str:
    """Returns the tables as Markdown."""
    lines = [
        f"Machine: {result['machine']}. CUB-50 crop, {result['n_images']} images at {result['image_size']} px, "
        f"`mobilenet_v2`, batch {result['batch']}; {result['rounds']} interleaved rounds, medians.",
        "",
        "| arm | images/s | relative to the plain loop "
        "| complete trial of 12 epochs, including the first pass per view | goal |",
        "|---|---|---|---|---|",
    ]
    goals = {"full fine-tuning": 1.5, "frozen_depth 10 of 19 units": 5.0, "everything frozen": 15.0}
    for row in result["epochs"]:
        goal = f">= {goals[row['arm']]:g}x" if row["arm"] in goals else ""
        lines.append(
            f"| {row['arm']} | {row['images_per_second']:.0f} | {row['ratio']:.2f}x "
            f"| {row['ratio_whole_trial']:.2f}x | {goal} |"
        )
    step = result["step_seconds"]
    lines += [
        "",
        "| step at batch 16, 64 px | ms | ratio | goal |",
        "|---|---|---|---|",
        f"| plain SGD | {1e3 * step['plain SGD']:.1f} | 1 | |",
        f"| L2-SP | {1e3 * step['L2-SP']:.1f} | {step['L2-SP'] / step['plain SGD']:.3f}x | <= 1.15x |",
        "",
        "| start of a warm worker's next trial | ms | goal |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {1e3 * value:.0f} | <= 50 ms |" for name, value in result["start_seconds"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True, help="folder of CUB_200_2011")
    parser.add_argument("--weights", required=True, help="state dict of torchvision's mobilenet_v2")
    parser.add_argument("--image-size", type=int, default=96, help="side of the images")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds")
    parser.add_argument("--steps", type=int, default=150, help="measured steps of the L2-SP comparison")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="output folder")
    args = parser.parse_args()

    task = nbt.load_task(
        "cub", backbone="mobilenet_v2", weights=args.weights, data_dir=args.data_dir, image_size=args.image_size
    ).train_on_all()
    seconds = measure_epochs(task, args)
    result = {
        "machine": machine(),
        "image_size": args.image_size,
        "batch": args.batch,
        "rounds": args.rounds,
        "n_images": len(task.split.train),
        "seconds": seconds,
        "epochs": epoch_rows(seconds, len(task.split.train), 12),
        "step_seconds": measure_step(task, args),
        "start_seconds": measure_set_up(task),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "bench_training.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "bench_training.md").write_text(to_markdown(result))
    print(to_markdown(result))


if __name__ == "__main__":
    main()
