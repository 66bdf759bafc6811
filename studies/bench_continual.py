"""Benchmark: time and memory of linearised training and of the curvature of a task.

1. Time of a training step (forward, backward, SGD) of the first-order expansion, relative to an ordinary step of the
   same network with the same batch and trained parameters. Goal: at most 3x.
2. Time of the K-FAC factors and of the diagonal of `mobilenet_v2(width_mult=0.35)` on 1500 images at 64 px, relative to
   two ordinary epochs of training on the same images. Goal for K-FAC: at most the time of the two epochs.
3. Memory of the factors, as `nbt continual` states it before it starts.

The arms are interleaved: every round runs each arm once, so that other load on the machine affects all arms. Reported
are medians over rounds, and medians of the ratios within rounds. Pixels are random numbers, because the time does not
depend on them.

    python studies/bench_continual.py

Writes `studies/results/bench_continual.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import machine
from torch import nn

from nbt.models.backbone import Backbone, build_backbone
from nbt.models.backbone_spec import parse_backbone
from nbt.transfer.curvature.estimate import curvature_bytes, estimate_curvature
from nbt.transfer.linearize import FirstOrder

CLASSES = 50
BATCH = 32
STEPS = (("conv3", 28), ("mobilenet_v2(width_mult=0.35)", 64), ("resnet18", 64))
STEP_GOAL, FACTOR_GOAL = 3.0, 1.0
Arms = Mapping[str, Callable[[], None]]


def build_inputs(name: str, size: int, images: int) -> tuple[Backbone, torch.Tensor, torch.Tensor]:
    """Returns a model, random images, (images, 3, size, size), and random labels, (images,)."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_backbone(parse_backbone(name), CLASSES, image_size=size)
    model = model.to(device).to(memory_format=torch.channels_last)
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randn(images, 3, size, size, generator=rng).contiguous(memory_format=torch.channels_last)
    return model, pixels.to(device), torch.randint(CLASSES, (images,), generator=rng).to(device)


def train(network: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Runs one training step per batch."""
    for inputs, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(network(inputs), truth).backward()
        optimizer.step()


def step_arms(name: str, size: int) -> Arms:
    """Returns an ordinary and a linearised training step on the same batch."""
    model, images, labels = build_inputs(name, size, BATCH)
    ordinary = torch.optim.SGD(model.train().parameters(), lr=1e-6, momentum=0.9, fused=True)
    linear_model, _, _ = build_inputs(name, size, 1)
    expansion = FirstOrder(linear_model)
    linear_optimizer = torch.optim.SGD(linear_model.parameters(), lr=1e-6, momentum=0.9, fused=True)
    return {
        "ordinary step": partial(train, model, ordinary, images, labels),
        "linearised step": partial(train, expansion, linear_optimizer, images, labels),
    }


def curvature_arms(name: str, size: int, images: int) -> Arms:
    """Returns two training epochs and the estimates of both curvatures on the same images."""
    model, pixels, labels = build_inputs(name, size, images)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, fused=True)

    def two_epochs() -> None:
        model.train()
        for _ in range(2):
            train(model, optimizer, pixels, labels)

    def curvature(kind: str) -> None:
        model.eval()
        estimate_curvature(kind, model, pixels.split(BATCH))

    return {"two epochs": two_epochs, "K-FAC": partial(curvature, "kfac"), "diagonal": partial(curvature, "diagonal")}


def time_arms(arms: Arms, rounds: int, repeats: int = 1) -> dict[str, list[float]]:
    """Returns the seconds per repeat of every arm in every round, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        for name, arm in arms.items():
            started = time.perf_counter()
            for _ in range(repeats):
                arm()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[name].append((time.perf_counter() - started) / repeats)
    return seconds


def ratio(seconds: Mapping[str, list[float]], arm: str, base: str) -> float:
    """Returns the median over rounds of the time of an arm divided by the time of the base arm."""
    return statistics.median(a / b for a, b in zip(seconds[arm], seconds[base], strict=True))


def to_markdown(result: Mapping[str, Any]) -> str:
    """Returns the tables as Markdown."""
    steps = [
        f"| `{name}` at {size} px | {1e3 * statistics.median(seconds['ordinary step']):.1f} "
        f"| {1e3 * statistics.median(seconds['linearised step']):.1f} "
        f"| {ratio(seconds, 'linearised step', 'ordinary step'):.2f}x | <= {STEP_GOAL:g}x |"
        for (name, size), seconds in zip(STEPS, result["steps"], strict=True)
    ]
    curvature = result["curvature"]
    goals = {"K-FAC": f"<= {FACTOR_GOAL:g}x"}
    memory = {arm: f"{size / 2**20:.1f} MiB" for arm, size in result["bytes"].items()}
    rows = [
        f"| {arm} | {statistics.median(curvature[arm]):.2f} | {ratio(curvature, arm, 'two epochs'):.2f}x "
        f"| {goals.get(arm, '')} | {memory.get(arm, '')} |"
        for arm in curvature
    ]
    return "\n".join(
        [
            f"Machine: {result['machine']}, {result['device']}. {result['rounds']} interleaved rounds, medians.",
            "",
            f"One training step with {BATCH} images and {CLASSES} classes, all parameters trained:",
            "",
            "| network | ordinary, ms | linearised, ms | ratio | goal |",
            "|---|---|---|---|---|",
            *steps,
            "",
            f"Curvature of `{STEPS[1][0]}` on {result['images']} images at {STEPS[1][1]} px, all parameters trained:",
            "",
            "| arm | seconds | ratio | goal | memory |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds")
    parser.add_argument("--images", type=int, default=1500, help="images per curvature estimate")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="output folder")
    args = parser.parse_args()
    name, size = STEPS[1]
    model, _, _ = build_inputs(name, size, 1)
    result = {
        "machine": machine(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "rounds": args.rounds,
        "images": args.images,
        "steps": [time_arms(step_arms(*step), args.rounds, repeats=5) for step in STEPS],
        "curvature": time_arms(curvature_arms(name, size, args.images), args.rounds),
        "bytes": {"K-FAC": curvature_bytes("kfac", model), "diagonal": curvature_bytes("diagonal", model)},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "bench_continual.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "bench_continual.md").write_text(to_markdown(result))
    print(to_markdown(result))


if __name__ == "__main__":
    main()
