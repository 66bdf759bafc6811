"""Benchmark: time and memory of the fit measures.

1. Time of LogME with N = 6000 samples, D = 2048 features and C = 200 classes, relative to the computation that every
   implementation needs: the D x D Gram matrix and one float64 eigen-decomposition of it. Then the time of all output
   measures of a profile together, and their peak memory in addition to the features.
2. Time of a complete profile of `mobilenet_v2` on CUB-50 crop at 96 px, relative to one epoch of full fine-tuning.

The arms are interleaved: every round runs each arm once, so that other load on the machine affects all arms. Reported
are medians over rounds.

    python studies/bench_fit.py --data-dir ../shared/data --weights ../shared/weights/mobilenet_v2-imagenet.pth

Writes `studies/results/bench_fit.json` and `.md`. `--only measures` or `--only profile` runs and prints one part
and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

import nbt
from nbt.fit.gbc import COMPONENTS, gbc_from_components
from nbt.fit.h_score import h_score_from_spectrum
from nbt.fit.knn import knn_accuracy_unchecked
from nbt.fit.leep import nleep_from_components
from nbt.fit.logme import logme, logme_from_spectrum
from nbt.fit.pca import components_from_spectrum
from nbt.fit.ridge import ridge_accuracy_from_spectrum
from nbt.fit.spectrum import Spectrum
from nbt.fit.transrate import transrate_from_spectrum
from nbt.settings import TransferSettings
from nbt.training.fine_tune import fine_tune
from nbt.training.worker.context import WorkerContext

Samples = tuple[np.ndarray, np.ndarray]
DECOMPOSITION = "Gram matrix and its eigen-decomposition"


def draw_samples(n: int, dim: int, classes: int) -> Samples:
    """Returns float32 features with class structure and decreasing scales, (n, dim), and labels, (n,)."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(n) % classes)
    scales = np.logspace(0, -2, dim)
    centres = rng.standard_normal((classes, dim))
    features = (0.5 * centres[labels] + rng.standard_normal((n, dim))) * scales
    return np.maximum(features, 0).astype(np.float32), labels


def decompose(features: np.ndarray, labels: np.ndarray) -> None:
    """Computes the Gram matrix and its eigen-decomposition in float64."""
    matrix = features.astype(np.float64)
    np.linalg.eigh(matrix.T @ matrix)


def measure_all(features: np.ndarray, labels: np.ndarray) -> None:
    """Computes all output measures from one spectrum, as a fit profile does."""
    spectrum = Spectrum.of(features)
    logme_from_spectrum(spectrum, labels)
    h_score_from_spectrum(spectrum, labels, regularized=False)
    h_score_from_spectrum(spectrum, labels, regularized=True)
    ridge_accuracy_from_spectrum(spectrum, labels)
    transrate_from_spectrum(spectrum, labels)
    knn_accuracy_unchecked(spectrum.features, labels)
    projected = components_from_spectrum(spectrum, COMPONENTS)
    gbc_from_components(projected, labels)
    nleep_from_components(projected, labels)


def time_arms(arms: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of every arm in every round, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        for name, arm in arms.items():
            started = time.perf_counter()
            arm()
            if number:
                seconds[name].append(time.perf_counter() - started)
        print(f"round {number}: " + ", ".join(f"{name} {s[-1]:.2f}" for name, s in seconds.items() if s), flush=True)
    return seconds


def bench_measures(args: argparse.Namespace) -> dict[str, Any]:
    """Measures the time of the measures and their peak memory."""
    samples = draw_samples(args.samples, args.features, args.classes)
    seconds = time_arms(
        {
            DECOMPOSITION: lambda: decompose(*samples),
            "LogME": lambda: logme(*samples),
            "all output measures": lambda: measure_all(*samples),
        },
        args.rounds,
    )
    tracemalloc.start()
    measure_all(*samples)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    float64_bytes = 8 * args.samples * args.features
    return {"seconds": seconds, "peak_bytes": peak, "features_float64_bytes": float64_bytes}


def bench_profile(args: argparse.Namespace) -> dict[str, Any]:
    """Measures the time of a complete profile and of an epoch of full fine-tuning of the same task."""
    task = nbt.load_task(
        "cub", backbone="mobilenet_v2", weights=args.weights, data_dir=args.data_dir, image_size=args.image_size
    )
    trial = fine_tune(task, TransferSettings(epochs=10_000), context=WorkerContext(task))
    arms = {
        "one epoch": lambda: next(trial),
        "profile": lambda: nbt.profile_fit(task, all_measures=True, cache=False),
    }
    seconds = time_arms(arms, args.rounds)
    return {"seconds": seconds, "train_images": len(task.split.train), "image_size": args.image_size}


def medians(part: Mapping[str, Any]) -> dict[str, float]:
    """Returns the median seconds of every arm."""
    return {name: statistics.median(values) for name, values in part["seconds"].items()}


def measure_lines(result: Mapping[str, Any]) -> list[str]:
    """Returns the table of the first part as Markdown lines."""
    part = result["measures"]
    times = medians(part)
    base = times[DECOMPOSITION]
    goals = {"LogME": "<= 1.5x", "all output measures": "<= 2x"}
    return [
        f"Machine: {result['machine']}. N = {result['samples']}, D = {result['features']}, C = {result['classes']}; "
        f"{result['rounds']} interleaved rounds, medians.",
        "",
        "| arm | seconds | ratio | goal |",
        "|---|---|---|---|",
        *(f"| {name} | {time:.2f} | {time / base:.2f}x | {goals.get(name, '')} |" for name, time in times.items()),
        "",
        "The peak memory of the measures, in addition to the features, is "
        f"{part['peak_bytes'] / part['features_float64_bytes']:.2f} times the size of the features in float64 "
        "(goal: below 2).",
    ]


def profile_lines(result: Mapping[str, Any]) -> list[str]:
    """Returns the table of the second part as Markdown lines."""
    part = result["profile"]
    times = medians(part)
    return [
        f"Machine: {result['machine']}. {result['rounds']} interleaved rounds, medians.",
        "",
        f"| `mobilenet_v2` on CUB-50 crop, {part['image_size']} px | seconds | ratio | goal |",
        "|---|---|---|---|",
        f"| one epoch of full fine-tuning, {part['train_images']} images | {times['one epoch']:.2f} | 1 | |",
        f"| complete profile | {times['profile']:.2f} | {times['profile'] / times['one epoch']:.2f}x | < 1x |",
    ]


PARTS = {"measures": (bench_measures, measure_lines), "profile": (bench_profile, profile_lines)}


def to_markdown(result: Mapping[str, Any]) -> str:
    """Returns the tables of the parts that were run as Markdown."""
    tables = ["\n".join(lines(result)) for name, (_, lines) in PARTS.items() if name in result]
    return "\n\n".join(tables) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, help="run this part only, and write nothing")
    parser.add_argument("--data-dir", help="folder of CUB_200_2011")
    parser.add_argument("--weights", default="default", help="state dict of torchvision's mobilenet_v2")
    parser.add_argument("--image-size", type=int, default=96, help="side of the images in the profile part")
    parser.add_argument("--samples", type=int, default=6000, help="N of the measures part")
    parser.add_argument("--features", type=int, default=2048, help="D of the measures part")
    parser.add_argument("--classes", type=int, default=200, help="C of the measures part")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="output folder")
    args = parser.parse_args()

    parts = [args.only] if args.only else list(PARTS)
    if "profile" in parts and not args.data_dir:
        parser.error("the profile part needs the CUB_200_2011 images: pass --data-dir, or --only measures")
    settings = {name: getattr(args, name) for name in ("samples", "features", "classes", "rounds")}
    result: dict[str, Any] = {"machine": machine(), **settings}
    for name in parts:
        result[name] = PARTS[name][0](args)
    if not args.only:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "bench_fit.json").write_text(json.dumps(result, indent=1) + "\n")
        (args.out / "bench_fit.md").write_text(to_markdown(result))
    print(to_markdown(result))


if __name__ == "__main__":
    main()
