"""Benchmark: how seconds and memory of each phase grow with images, classes, units, trials and workers.

`images`, `classes` and `units` measure a task of generated images: reading and decoding, the cached reading, the fit
profile, and an epoch of full and of frozen training. `trials` and `workers` measure the search controller with
simulated trials (`engines_controller.py`): proposals, reports and ends of trials, and opening, reading and reporting
the study; MLflow apart. Every point runs in a process of its own, so that its peak of memory is its own.

    python studies/bench_scaling.py --work FOLDER                # all axes; continues an interrupted run
    python studies/bench_scaling.py images --work FOLDER --sizes 1000 10000
    python studies/bench_scaling.py report

Writes `studies/results/bench_scaling.json` and `.md`. The exponent of a phase is the slope of log(CPU seconds), which
other load changes less than seconds, over log(size) between the two largest sizes; for single calls of the controller
the medians of their seconds are used. Goals: none above that of n log n in images or trials, and anonymous memory that
does not grow with images.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from generated_images import write_images
from machine import machine, memory_of_process, sampled

HERE = Path(__file__).resolve().parent
SIZES = {
    "images": [1_000, 10_000, 100_000],
    "classes": [10, 100, 1_000],
    "units": [18, 35, 52],
    "trials": [100, 1_000, 10_000],
    "workers": [1, 16, 80, 256],
}
# Bottleneck units and the stem of torchvision's deep residual networks.
BACKBONES = {18: "resnet50", 35: "resnet101", 52: "resnet152"}
SMALL_BACKBONE, IMAGE_SIZE, CLASSES, IMAGES = "conv3(width=8)", 64, 10, 10_000
# Below this time in seconds a phase is noise and gets no exponent.
MEASURABLE = 0.02


class Phases:
    """Measures the phases of a point.

    Attributes:
        rows: Seconds, CPU seconds, and peak of the anonymous and file-backed memory in MiB, by phase.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measures the body."""
        anonymous, file = list[float](), list[float]()

        def sample() -> float:
            memory = memory_of_process()
            file.append(memory["file"])
            return memory["anonymous"]

        with sampled(sample, anonymous, 0.05):
            started, cpu = time.perf_counter(), time.process_time()
            yield
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        self.rows[name] = {"seconds": seconds, "cpu": cpu, "anonymous": max(anonymous), "file": max(file)}

    def add(self, name: str, seconds: float) -> None:
        """Adds a phase that was measured elsewhere, with the present memory."""
        self.rows[name] = {"seconds": seconds, "cpu": seconds, **memory_of_process()}


def measure_task(axis: str, size: int, work: Path) -> dict[str, dict[str, float]]:
    """Measures a task with `size` images, classes or units."""
    os.environ["NBT_CACHE"] = str(work / "cache" / f"{axis}-{size}")
    import nbt
    from nbt.api._load_task import TaskOptions
    from nbt.settings import TransferSettings
    from nbt.training.fine_tune import fine_tune
    from nbt.training.worker.context import WorkerContext

    phases = Phases()
    images = {"images": size, "classes": IMAGES, "units": 200}[axis]
    classes = size if axis == "classes" else CLASSES
    backbone = BACKBONES[size] if axis == "units" else SMALL_BACKBONE
    data = write_images(work, images=images, classes=classes, size=IMAGE_SIZE)
    options: TaskOptions = {"backbone": backbone, "weights": "none", "image_size": IMAGE_SIZE, "progress": False}
    with phases.measure("first load"):
        nbt.load_task(data, **options)
    with phases.measure("load from the cache"):
        task = nbt.load_task(data, **options)
    with phases.measure("fit profile"):
        nbt.profile_fit(task, cache=False)
    for name, frozen in (("full", 0.0), ("frozen", 1.0)):
        settings = TransferSettings(frozen_depth=frozen, epochs=2, views=1, batch_size=128)
        with phases.measure(f"worker context, {name}"):
            context = WorkerContext(task)
        with phases.measure(f"two epochs, {name}"):
            for _ in fine_tune(task, settings, context=context):
                pass
        del context
    return phases.rows


def measure_trials(size: int, work: Path) -> dict[str, dict[str, float]]:
    """Measures a study of `size` trials; the folder keeps it, and a larger size continues it."""
    from engines_controller import SimulatedEngine, open_controller

    from nbt.report.study.write import write_report
    from nbt.tuning.storage.studies import read_study

    phases, folder, last = Phases(), work / "trials", min(50, size // 2)
    folder.mkdir(parents=True, exist_ok=True)
    with open_controller(folder) as source:
        engine = SimulatedEngine(source)
        engine.run_until(size - last, running=2)
        source.pop_seconds()
        with phases.measure("last trials of the search"):
            engine.run_until(size, running=2)
        seconds = {name: sorted(values)[len(values) // 2] for name, values in source.pop_seconds().items()}
        for name, call in (("proposal", "next_job"), ("report of an epoch", "on_epoch"), ("end of a trial", "on_done")):
            phases.add(name, seconds[call])
        engine.end_all()
    with open_controller(folder) as source:
        phases.add("opening the study", source.opening_seconds)
    with phases.measure("reading the study"):
        record = read_study(f"sqlite:///{folder.resolve() / 'studies.db'}", "brain")
    with phases.measure("report"):
        write_report(record, folder / "reports")
    return phases.rows


def measure_workers(size: int, work: Path) -> dict[str, dict[str, float]]:
    """Measures the controller behind `size` simulated trials at a time: every call, and the reports per second."""
    from engines_controller import SimulatedEngine, open_controller

    phases, folder = Phases(), work / f"workers-{size}"
    folder.mkdir(parents=True, exist_ok=True)
    with open_controller(folder) as source:
        engine = SimulatedEngine(source)
        engine.run_until(max(100, size // 2), running=size)
        source.pop_seconds()
        before = source.finished
        started = time.perf_counter()
        engine.run_until(before + max(100, 2 * size), running=size)  # many trials end at the same time
        elapsed = time.perf_counter() - started
        calls = source.pop_seconds()
        phases.add("a report, with its share of starts and ends of trials", elapsed / len(calls["on_epoch"]))
        for name, call in (("proposal", "next_job"), ("report of an epoch", "on_epoch"), ("end of a trial", "on_done")):
            phases.add(name, sorted(calls[call])[len(calls[call]) // 2])
        engine.end_all()
    return phases.rows


def measure(axis: str, size: int, work: Path) -> dict[str, dict[str, float]]:
    """Measures one point."""
    if axis == "trials":
        return measure_trials(size, work)
    return measure_workers(size, work) if axis == "workers" else measure_task(axis, size, work)


def measure_in_process(axis: str, size: int, work: Path) -> dict[str, Any]:
    """Measures one point in a new process with one thread."""
    command = [sys.executable, __file__, axis, "--sizes", str(size), "--work", str(work), "--point"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    rows: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return rows


def exponent(points: dict[str, dict[str, dict[str, float]]], phase: str, column: str = "cpu") -> float | None:
    """Returns the slope of a phase between the two largest sizes; None if it is too fast or was not measured."""
    measured = [(int(size), rows[phase][column]) for size, rows in points.items() if phase in rows]
    if len(measured) < 2:
        return None
    (n, first), (m, second) = sorted(measured)[-2:]
    if second < MEASURABLE:
        return None
    return math.log(second / first) / math.log(m / n)


def to_markdown(result: dict[str, Any]) -> str:
    """Returns one table per axis."""
    lines = [
        "# How the phases grow",
        "",
        f"{result['machine']}. Seconds, CPU seconds, and anonymous memory in MiB at the peak.",
    ]
    for axis, points in result["axes"].items():
        sizes = sorted(points, key=int)
        columns = [f"{int(size):,}" for size in sizes]
        lines += ["", f"## {axis.capitalize()}", ""]
        lines.append(
            "| phase | " + " | ".join(f"{name}: s, CPU s (MiB)" for name in columns) + " | exponent | n log n |"
        )
        lines.append("|---|" + "---|" * (len(sizes) + 2))
        n_log_n = 1 + math.log(math.log(int(sizes[-1])) / math.log(int(sizes[-2]))) / math.log(
            int(sizes[-1]) / int(sizes[-2])
        )
        for phase in points[sizes[-1]]:
            cells = [points[size].get(phase) for size in sizes]
            texts = ["" if c is None else f"{c['seconds']:.3g}, {c['cpu']:.3g} ({c['anonymous']:.0f})" for c in cells]
            slope = exponent(points, phase)
            slope_text = "" if slope is None else f"{slope:.2f}"
            lines.append(f"| {phase} | {' | '.join(texts)} | {slope_text} | {n_log_n:.2f} |")
    return "\n".join(lines) + "\n"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axes", nargs="*", default=list(SIZES), choices=[*SIZES, "report"])
    parser.add_argument("--sizes", type=int, nargs="+", help="of the axis; by default all")
    parser.add_argument("--work", type=Path, help="folder for images, caches and studies, which is kept")
    parser.add_argument("--point", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measures points that are missing, and writes the tables."""
    args = parse(arguments)
    path = args.out / "bench_scaling.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"axes": {}}
    for axis in args.axes if "report" not in args.axes else ():
        for size in args.sizes or SIZES[axis]:
            if args.point:
                print(json.dumps(measure(axis, size, args.work)))
                return
            points = result["axes"].setdefault(axis, {})
            if str(size) in points and args.sizes is None:
                continue
            args.work.mkdir(parents=True, exist_ok=True)
            started = time.monotonic()
            points[str(size)] = measure_in_process(axis, size, args.work.resolve())
            print(f"{axis} {size}: {time.monotonic() - started:.0f} s", flush=True)
            args.out.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n", encoding="utf-8")
    text = to_markdown(json.loads(path.read_text()))
    (args.out / "bench_scaling.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
