"""Benchmark: nbt on one GPU, in one command of at most six minutes.

1. `training`: images per second of full, half-frozen and frozen training, of a plain loop and of the recipes of
   torchvision's and timm's reference scripts (`gpu_loops.py`), with the accuracy of each, and the share of the time in
   which the GPU computes. The arms run their epochs in turn. Goals: 1.3 times the faster reference; .9 of the time.
2. `packing`: trials per minute with 1, 2, 4 and 8 trials at a time on the GPU, in worker processes, and their memory.
3. `compile`: a training step as it is, with `torch.compile`, and with CUDA graphs, and after how many epochs of a trial
   the compilation would have paid.
4. `search`: a whole search with the local engine and its phases.
5. `tests`: the tests marked gpu.

    python studies/bench_gpu.py                      # on a machine with a GPU
    python studies/bench_gpu.py --tiny --out FOLDER  # tiny sizes on the CPU: the script works, no figures

A part that is in `bench_gpu.json` is not measured again, so that the same command continues an interrupted run; no part
begins after `--minutes`. Images are generated on the machine; another folder of images (`--data`) and a file of weights
(`--weights`) can be carried along. Ray and MLflow are not needed. Parts 2 and 4 need Optuna and SQLAlchemy: where they
are missing, the script says which wheels to carry and measures the other parts.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from generated_images import write_images
from gpu_loops import LOOPS, LoopTask
from gpu_tables import to_markdown
from machine import gpu_utilisation, machine

import nbt
from nbt.data.registry import read_dataset
from nbt.data.resolve import resolve
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.fine_tune import fine_tune
from nbt.training.worker.context import WorkerContext

HERE = Path(__file__).resolve().parent
FROZEN = {"nbt, full": 0.0, "nbt, half frozen": 0.5, "nbt, frozen": 1.0}
SEARCH_PACKAGES = ("optuna", "sqlalchemy", "alembic", "mako", "colorlog", "greenlet", "filelock")
# What a part takes at most on the GPU, in seconds: it does not begin with less time left.
LONGEST = {"training": 150, "packing": 60, "compile": 60, "search": 80, "tests": 60}


def training(task: Task, args: argparse.Namespace) -> dict[str, Any]:
    """Runs the epochs of all arms in turn; the first epoch of each starts its processes and is left out."""
    device = torch.device(args.device)
    arms: dict[str, Any] = {name: nbt_epochs(task, depth, args) for name, depth in FROZEN.items()}
    arms |= {name: loop(loop_task(task, args, device)) for name, loop in LOOPS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    busy: dict[str, list[float]] = {name: [] for name in arms}
    accuracy = {}
    for number in range(args.epochs + 1):
        for name, arm in arms.items():
            with gpu_utilisation(device) as shares:
                try:
                    seconds[name].append(next(arm))
                except StopIteration as end:
                    accuracy[name] = end.value
            busy[name] += shares if 0 < number < args.epochs else []
    images = len(task.split.train)
    rows = {
        name: {
            "images_per_second": images / statistics.median(values[1:]),
            "first_epoch_seconds": values[0],
            "accuracy": accuracy[name],
            "gpu_busy": statistics.fmean(busy[name]) if busy[name] else None,
        }
        for name, values in seconds.items()
    }
    return {"images": images, "epochs": args.epochs, "batch": args.batch, "arms": rows}


def nbt_epochs(task: Task, frozen: float, args: argparse.Namespace) -> Generator[float, None, float | None]:
    """Yields the seconds of the epochs of `fine_tune`; the value is the validation accuracy after the last one."""
    settings = TransferSettings(frozen_depth=frozen, batch_size=args.batch, epochs=args.epochs, views=2)
    epoch = None
    for epoch in fine_tune(task, settings, context=WorkerContext(task, device=args.device)):
        yield epoch.seconds
    return None if epoch is None else epoch.val_accuracy


def loop_task(task: Task, args: argparse.Namespace, device: torch.device) -> LoopTask:
    """Returns the task of a loop: the same images, parts and starting weights."""
    files = read_dataset(resolve(task.dataset)).items
    train, val = (
        ([files[i] for i in part], [int(task.labels[i]) for i in part]) for part in (task.split.train, task.split.val)
    )
    return LoopTask(
        train=train,
        val=val,
        size=task.image_size,
        mean=task.mean,
        std=task.std,
        model=partial(task.build_model, device=device),
        device=device,
        epochs=args.epochs,
        batch=args.batch,
        workers=args.loaders,
    )


def packing(task: Task, args: argparse.Namespace) -> dict[str, Any]:
    """Runs the same trials with different numbers of workers that share the GPU; the first round starts the workers."""
    from engines_arm import TimedSource

    from nbt.training.results import TrialSpec
    from nbt.tuning.engines.local import LocalEngine

    class Source(TimedSource):
        """A list of trials that notes the memory of each one."""

        def __init__(self, count: int) -> None:
            settings = TransferSettings(batch_size=args.batch, epochs=args.packed_epochs)
            super().__init__([TrialSpec(key=f"t{n}", settings=settings, seed=n) for n in range(count)])
            self.memory: list[int] = []

        def on_done(self, spec: Any, outcome: Any) -> None:
            super().on_done(spec, outcome)
            self.memory.append(outcome.facts.get("peak_memory_bytes", 0))

    rows = {}
    for workers in args.packed:
        with tempfile.TemporaryDirectory() as folder:
            shared = dataclasses.replace(task, images=task.images.in_file(Path(folder)))
            with LocalEngine(shared, workers=workers, device=args.device) as engine:
                engine.run(Source(workers))
                source, started = Source(max(args.packed)), time.perf_counter()
                engine.run(source)
                seconds = time.perf_counter() - started
        rows[str(workers)] = {
            "trials_per_minute": 60 * max(args.packed) / seconds,
            "peak_gib": max(source.memory) / 2**30,
        }
    return {"epochs": args.packed_epochs, "trials": max(args.packed), "workers": rows}


def compiled(task: Task, args: argparse.Namespace) -> dict[str, Any]:
    """Measures a training step without and with `torch.compile`."""
    device = torch.device(args.device)
    kinds: dict[str, dict[str, Any] | None] = {"as it is": None, "compiled": {}}
    kinds["CUDA graphs"] = {"mode": "reduce-overhead"}
    if args.tiny:  # without a compiler
        kinds = {"as it is": None, "compiled": {"backend": "eager"}}
    inputs = task.load_images(task.split.train[: args.batch], device)
    truth = torch.from_numpy(task.labels[task.split.train[: args.batch]]).to(device)
    rows: dict[str, Any] = {}
    for name, options in kinds.items():
        model = task.build_model(device=device).train()
        network = model if options is None else torch.compile(model, **options)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=device.type == "cuda")
        times = []
        for _ in range(args.steps):
            started = time.perf_counter()
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                loss = torch.nn.functional.cross_entropy(network(inputs), truth)
            loss.backward()
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
        median = statistics.median(times[len(times) // 2 :])
        rows[name] = {"step_ms": 1e3 * median, "start_seconds": sum(times[:3]) - 3 * median}
    base, steps = rows["as it is"]["step_ms"], -(-len(task.split.train) // args.batch)
    for row in rows.values():
        saved = 1e-3 * (base - row["step_ms"]) * steps
        row["epochs_to_pay"] = row["start_seconds"] / saved if saved > 0 else None
    return {"steps_per_epoch": steps, "kinds": rows}


def search(task: Task, args: argparse.Namespace) -> dict[str, Any]:
    """Runs a whole search with the local engine."""
    with tempfile.TemporaryDirectory() as folder:
        before = Path.cwd()
        os.chdir(folder)
        try:
            started = time.perf_counter()
            options: dict[str, Any] = {"workers": 1, "heuristics": False, "pruner": "none"} if args.tiny else {}
            options |= {"budget": args.budget, "epochs": args.search_epochs, "progress": False, "study": "gpu"}
            result = nbt.search(task, **options)
            seconds = time.perf_counter() - started
        finally:
            os.chdir(before)
    trials = len(result.record.trials)
    return {"seconds": seconds, "phases": dict(result.record.clock), "trials": trials, "epochs": args.search_epochs}


def gpu_tests(task: Task, args: argparse.Namespace) -> dict[str, Any]:
    """Runs the tests marked gpu; they need a GPU."""
    if args.device == "cpu":
        return {"skipped": "no GPU"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-n", "0", "tests"]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=LONGEST["tests"])
    return {"exit_code": done.returncode, "tail": done.stdout[-400:]}


PARTS: dict[str, Callable[[Task, argparse.Namespace], dict[str, Any]]] = {
    "training": training,
    "packing": packing,
    "compile": compiled,
    "search": search,
    "tests": gpu_tests,
}


def missing_packages() -> list[str]:
    """Returns the packages of a search that are not installed."""
    return [name for name in SEARCH_PACKAGES if importlib.util.find_spec(name) is None]


def run_parts(task: Task, args: argparse.Namespace, result: dict[str, Any], deadline: float) -> None:
    """Measures the parts that are missing in `result` and for which there is time, and stores each at once."""
    missing = missing_packages()
    for name, part in PARTS.items():
        if name in result or name not in args.parts:
            continue
        if name in ("packing", "search") and missing:
            print(f"{name}: left out, because these packages are missing: {', '.join(missing)}. Carry their wheels:")
            print(f"    pip download --only-binary=:all: -d .whl {' '.join(missing)}   # about 8 MB")
            continue
        if not args.tiny and deadline - time.monotonic() < LONGEST[name]:
            print(f"{name}: no time left; run the same command again to continue")
            continue
        started = time.monotonic()
        result[name] = part(task, args)
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
        save(args.out, result)


def save(out: Path, result: dict[str, Any]) -> None:
    """Writes the figures and their table."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench_gpu.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (out / "bench_gpu.md").write_text(to_markdown(result), encoding="utf-8")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--data", type=Path, help="folder of images with one subfolder per class; generated if absent")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--images", type=int, default=3000, help="generated images")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--packed", type=int, nargs="+", default=[1, 2, 4, 8], help="trials at a time")
    parser.add_argument("--packed-epochs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--budget", type=int, default=8)
    parser.add_argument("--search-epochs", type=int, default=4)
    parser.add_argument("--loaders", type=int, default=len(os.sched_getaffinity(0)), help="loader processes of a loop")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes on the CPU, for the tests")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args(arguments)
    args.device = "cuda" if torch.cuda.is_available() and not args.tiny else "cpu"
    if args.tiny:
        sizes = {"backbone": "conv3(width=8)", "image_size": 28, "images": 60, "batch": 16, "epochs": 2, "steps": 6}
        vars(args).update(sizes | {"packed": [1], "packed_epochs": 1, "budget": 1, "search_epochs": 1, "loaders": 0})
    return args


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    args = parse(arguments)
    deadline = time.monotonic() + 60 * args.minutes
    if args.device == "cpu" and not args.tiny:
        raise SystemExit("bench_gpu.py needs a GPU, and PyTorch sees none here; --tiny runs tiny sizes on the CPU")
    path = args.out / "bench_gpu.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or write_images(Path(folder), images=args.images, classes=10, size=args.image_size)
        options = {"backbone": args.backbone, "weights": args.weights, "image_size": args.image_size}
        task = nbt.load_task(data, progress=False, **options)
        device = "the CPU, tiny sizes" if args.device == "cpu" else torch.cuda.get_device_name()
        sizes = f"`{args.backbone}` at {args.image_size} px, batch {args.batch}"
        result["facts"] = f"{device}; {machine()}, {len(os.sched_getaffinity(0))} cores; {sizes}."
        run_parts(task, args, result, deadline)
    save(args.out, result)
    print(to_markdown(result))


if __name__ == "__main__":
    main()
