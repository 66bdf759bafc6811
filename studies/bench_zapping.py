"""Benchmark: time of an ASB episode relative to its gradients, and memory of meta-ASB.

1. Time of one ASB episode on Omniglot's `conv3` (width 256, 964 classes) as `nbt pretrain` runs it (draw, zap, 20
   single steps with SGD, one step with Adam), relative to its 21 forward and backward passes alone. Goal: at most 1.3x.
   The time of a meta-ASB episode is also measured.
2. Peak memory of an episode of each scheme in addition to the network and its images: of the process on a CPU, of
   PyTorch's allocator on a GPU. Each measurement runs in a new process.

The arms are interleaved: every round runs each arm once, so that other load on the machine affects all arms. Reported
are medians over rounds. Pixels are random numbers, because neither time nor memory depends on them.

    python studies/bench_zapping.py

Writes `studies/results/bench_zapping.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from machine import machine

from nbt.devices import flush_denormals
from nbt.models.backbone_spec import parse_backbone
from nbt.models.weights import load_pretrained_weights
from nbt.seeds import generator
from nbt.settings.pretrain import default_pretrain_settings
from nbt.training.pretrain.episodes import draw_episode
from nbt.training.pretrain.source_images import SourceImages
from nbt.training.pretrain.source_trainer import SourceTrainer

IMAGES_PER_CLASS = 20
PASSES_ONLY = "21 forward and backward passes"
GOAL = 1.3


def make_trainer(scheme: str, args: argparse.Namespace) -> SourceTrainer:
    """Returns a trainer on random pixels with the size of Omniglot's background set."""
    rng = np.random.default_rng(0)
    n = args.classes * IMAGES_PER_CLASS
    images = SourceImages(
        name="random pixels",
        class_names=tuple(map(str, range(args.classes))),
        pixels=rng.integers(0, 256, size=(n, 28, 28, 3), dtype=np.uint8),
        labels=np.repeat(np.arange(args.classes), IMAGES_PER_CLASS),
        digest="random",
    )
    spec = parse_backbone(f"conv3(width={args.width})")
    settings = default_pretrain_settings(scheme, "conv3", zap_period=1)
    return SourceTrainer(images, spec, load_pretrained_weights(spec, "none", image_size=28), settings)


def passes_only(trainer: SourceTrainer) -> Callable[[], None]:
    """Returns a function that runs only the forward and backward passes of one episode, on prepared images."""
    episode = draw_episode(trainer.class_indices, 20, 64, generator(0, "bench"))
    images, labels = trainer.load(episode.batch), trainer.truth(episode.batch)
    batches = [*zip(images[:20].split(1), labels[:20].split(1), strict=True), (images, labels)]

    def run() -> None:
        with flush_denormals():
            for image, label in batches:
                trainer.model.zero_grad(set_to_none=True)
                F.cross_entropy(trainer.model(image), label).backward()
        synchronise()

    return run


def synchronise() -> None:
    """Waits until the GPU has finished, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_arms(args: argparse.Namespace) -> dict[str, list[float]]:
    """Returns the seconds of every arm in every round, after one warm-up round."""
    asb, meta = make_trainer("asb", args), make_trainer("meta-asb", args)
    arms: dict[str, Callable[[], None]] = {
        PASSES_ONLY: passes_only(make_trainer("asb", args)),
        "ASB episode": asb.run_round,
        "meta-ASB episode": meta.run_round,
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(args.rounds + 1):
        for name, arm in arms.items():
            started = time.perf_counter()
            arm()
            synchronise()
            if number:
                seconds[name].append(time.perf_counter() - started)
        print(f"round {number}: " + ", ".join(f"{name} {s[-1]:.2f}" for name, s in seconds.items() if s), flush=True)
    return seconds


def peak_bytes(scheme: str, args: argparse.Namespace) -> int:
    """Returns the peak memory of an episode in bytes, in addition to the memory before it; call it in a new process."""
    trainer = make_trainer(scheme, args)
    if trainer.device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        trainer.run_round()
        return torch.cuda.max_memory_allocated() - before
    before = process_memory("VmRSS")
    trainer.run_round()
    return process_memory("VmHWM") - before


def process_memory(field: str) -> int:
    """Returns the memory of this process in bytes: "VmRSS" is the current value, "VmHWM" the peak (Linux only)."""
    # getrusage would report the parent's peak, which a child process inherits.
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


def measure_memory(scheme: str, args: argparse.Namespace) -> int:
    """Returns the result of `peak_bytes` in a new process."""
    command = [sys.executable, __file__, "--memory-of", scheme, "--width", str(args.width)]
    completed = subprocess.run([*command, "--classes", str(args.classes)], check=True, capture_output=True, text=True)
    return int(completed.stdout.split()[-1])


def to_markdown(result: Mapping[str, Any]) -> str:
    """Returns the table as Markdown."""
    times = {name: statistics.median(values) for name, values in result["seconds"].items()}
    goals = {"ASB episode": f"<= {GOAL}x"}
    memory = {"ASB episode": result["peak_bytes"]["asb"], "meta-ASB episode": result["peak_bytes"]["meta-asb"]}
    rows = [
        f"| {name} | {seconds:.3f} | {seconds / times[PASSES_ONLY]:.2f}x | {goals.get(name, '')} | "
        + (f"{memory[name] / 2**20:.0f} MiB |" if name in memory else "|")
        for name, seconds in times.items()
    ]
    return "\n".join(
        [
            f"Machine: {result['machine']}, {result['device']}. `conv3(width={result['width']})` at 28 px, "
            f"{result['classes']} classes, {result['parameters']:,} parameters; {result['rounds']} "
            "interleaved rounds, medians. Memory is the peak of the first episode in addition to the network and its "
            "images; it includes the gradients and Adam's state.",
            "",
            "| arm | seconds | ratio | goal | peak memory |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=256, help="width of conv3")
    parser.add_argument("--classes", type=int, default=964, help="source classes")
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="output folder")
    parser.add_argument("--memory-of", choices=("asb", "meta-asb"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        print(peak_bytes(args.memory_of, args))
        return
    result = {
        "machine": machine(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        **{name: getattr(args, name) for name in ("width", "classes", "rounds")},
        "parameters": sum(parameter.numel() for parameter in make_trainer("asb", args).model.parameters()),
        "seconds": time_arms(args),
        "peak_bytes": {scheme: measure_memory(scheme, args) for scheme in ("asb", "meta-asb")},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "bench_zapping.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "bench_zapping.md").write_text(to_markdown(result))
    print(to_markdown(result))


if __name__ == "__main__":
    main()
