"""Benchmark: time of weight injection.

1. Injection of `mobilenet_v2` into `resnet18`, from the teacher's weights in memory to the student's state dict:
   outlines, matching, the student's initial weights, crops and resizes (goal: below 2 s). The caches are cleared before
   every call.
2. Similarity of all pairs among 20 torchvision architectures, without weights (goal: below 60 s), including their
   outlines. Every round runs in a new process, so that the imports of PyTorch for the first model on the meta device
   are included.

    python studies/bench_injection.py

Reports medians over rounds. Writes `studies/results/bench_injection.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

ARCHITECTURES = (
    *("alexnet", "vgg11_bn", "vgg16", "resnet18", "resnet50", "resnext50_32x4d", "densenet121", "googlenet"),
    *("inception_v3", "squeezenet1_0", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "mnasnet1_0"),
    *("shufflenet_v2_x1_0", "efficientnet_b0", "regnet_y_400mf", "convnext_tiny", "vit_b_16", "swin_t"),
)
PAIRS = f"all {len(ARCHITECTURES) ** 2} pairs of {len(ARCHITECTURES)} architectures"
INJECTION = "mobilenet_v2 into resnet18"
GOALS = {INJECTION: 2.0, PAIRS: 60.0}


def time_injection(rounds: int) -> list[float]:
    """Returns the seconds of each injection, after one warm-up injection."""
    from nbt.models.backbone import _dry_run, random_unit_state
    from nbt.models.backbone_spec import parse_backbone
    from nbt.models.teacher import Teacher
    from nbt.transfer.injection.outline import outline_of
    from nbt.transfer.injection.weight_injection import inject_weights

    source, student = parse_backbone("mobilenet_v2"), parse_backbone("resnet18")
    teacher = Teacher("mobilenet_v2", source, random_unit_state(source, 224, 0))
    seconds = []
    for _ in range(rounds + 1):
        for cached_function in (outline_of, _dry_run):
            cached_function.cache_clear()
        started = time.perf_counter()
        inject_weights(student, 224, teacher)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def similarity_matrix() -> np.ndarray:
    """Returns the TLI similarity of all pairs of `ARCHITECTURES`, (student, teacher)."""
    from nbt.models.backbone_spec import parse_backbone
    from nbt.transfer.injection.outline import outline_of
    from nbt.transfer.injection.weight_injection import tli_similarity

    outlines = [outline_of(parse_backbone(name)) for name in ARCHITECTURES]
    return np.array([[tli_similarity(student, teacher) for teacher in outlines] for student in outlines])


def time_pairs(rounds: int) -> list[float]:
    """Returns the seconds that the similarities of all pairs take, by round; each round runs in a new process."""
    command = [sys.executable, __file__, "--pairs"]
    return [float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(rounds)]


def to_markdown(result: Mapping[str, Any]) -> str:
    """Returns the table as Markdown."""
    rows = [
        f"| {name} | {statistics.median(seconds):.2f} | {min(seconds):.2f} ... {max(seconds):.2f} | < {GOALS[name]:g} |"
        for name, seconds in result["seconds"].items()
    ]
    header = [
        f"Machine: {result['machine']}. Medians.",
        "",
        "| measurement | seconds | range | goal |",
        "|---|---|---|---|",
    ]
    return "\n".join([*header, *rows, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="rounds of the injection")
    parser.add_argument("--pair-rounds", type=int, default=3, help="rounds of all pairs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="output folder")
    parser.add_argument("--pairs", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.pairs:
        started = time.perf_counter()
        similarity_matrix()
        print(time.perf_counter() - started)
        return
    seconds = {INJECTION: time_injection(args.rounds), PAIRS: time_pairs(args.pair_rounds)}
    result = {"machine": machine(), "seconds": seconds}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "bench_injection.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "bench_injection.md").write_text(to_markdown(result))
    print(to_markdown(result))


if __name__ == "__main__":
    main()
