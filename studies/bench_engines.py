"""Benchmark: the overhead of the engines, and their limits.

1. `overhead`: the time per trial without training, with warm workers, of the Ray engine, a plain Ray Tune function
   trainable, a plain class trainable whose actors are reused (all on one Ray instance) and the local engine. Each arm
   has its own driver; the arms run alternating blocks. Goal: at most 120 ms with the Ray engine.
2. `workers`: the same list of real trials on frozen features with one worker and with two, one thread each, in
   alternating blocks, after the features are cached. Goal: two workers run at least 1.6 times as many trials per
   second.
3. `crowd`: 256 concurrent trials without training, on four nodes that are simulated on this machine, which needs about
   30 GB, swap included; use fewer trials with less memory. Goals: the driver handles at least 100 reports per second,
   and its memory grows by less than 1 MB per trial.
4. `brain`: the calls of a search controller with default options, up to 2,000 finished trials, and then with many
   concurrent trials. Goal: a decision takes less than 50 ms.
5. `checkpoints`: the size of a trial's checkpoints, and the time to send them to the driver.

    python studies/bench_engines.py overhead
    python studies/bench_engines.py workers --shared ../shared
    python studies/bench_engines.py crowd --trials 32 96 160
    python studies/bench_engines.py brain --work FOLDER     # continues an interrupted run
    python studies/bench_engines.py checkpoints
    python studies/bench_engines.py report

Each part writes its rows into `studies/results/bench_engines.json`. `report` writes the tables into `bench_engines.md`
and the extrapolation to many GPUs into `thousand_gpus.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import engines_limits
from engines_arm import Arm, worker_environment
from engines_tables import to_markdown
from machine import machine

HERE = Path(__file__).parent


def overhead(args: argparse.Namespace) -> dict[str, Any]:
    """Runs blocks of trials without training, alternating between the arms."""
    with shared_ray() as address, ExitStack() as stack:
        ray, local = {"engine": "ray", "address": address}, {"engine": "local"}
        plain = {"address": address}
        arms = {
            "Ray engine": Arm("noop", **ray, workers=1),
            "Ray Tune, function trainable": Arm("plain", **plain, trainable="function", reuse=None),
            "Ray Tune, class trainable, actors reused": Arm("plain", **plain, trainable="class", reuse=True),
            "local engine, in its process": Arm("noop", **local, workers=1),
            "local engine, worker processes": Arm("noop", **local, workers=2),
        }
        for arm in arms.values():
            stack.enter_context(arm)
            arm.request(trials=2, epochs=1)
        rows: dict[str, dict[str, list[float]]] = {name: {} for name in arms}
        for number in range(args.blocks):
            for epochs in (1, 12):
                for name, arm in arms.items():
                    rows[name].setdefault(str(epochs), []).extend(arm.request(trials=args.trials, epochs=epochs))
            print(f"block {number + 1} of {args.blocks}", flush=True)
    return {"blocks": args.blocks, "trials": args.trials, "seconds": rows}


def workers(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the same list of trials with one worker and with two, alternating."""
    with shared_ray() as address, ExitStack() as stack:
        fixed = {"shared": str(args.shared.resolve()), "image_size": args.image_size, "address": address}
        arms = {
            f"{name} {count}": stack.enter_context(Arm("frozen", engine=name, workers=count, **fixed))
            for name in ("ray", "local")
            for count in (1, 2)
        }
        for name, arm in arms.items():
            # Each worker fills its own cache; with two workers, this takes two rounds.
            for _ in range(2):
                print(f"{name}: filling the caches took {arm.request(trials=args.jobs, epochs=12):.0f} s", flush=True)
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        for number in range(args.rounds):
            for name in list(arms) if number % 2 else reversed(arms):
                seconds[name].append(arms[name].request(trials=args.jobs, epochs=12))
            print(f"round {number + 1}: " + ", ".join(f"{n} {s[-1]:.1f}" for n, s in seconds.items()), flush=True)
    return {"jobs": args.jobs, "image_size": args.image_size, "rounds": args.rounds, "seconds": seconds}


def concurrent_trials(args: argparse.Namespace) -> dict[str, Any]:
    """Runs waves of concurrent trials, each number of trials in its own cluster."""
    runs = load(args.out).get("crowd", {}).get("runs", {})
    for trials in args.trials:
        runs[str(trials)] = run_waves(trials, args)
    return {"nodes": args.nodes, "runs": {number: runs[number] for number in sorted(runs, key=int)}}


def run_waves(trials: int, args: argparse.Namespace) -> dict[str, Any]:
    """Runs the waves of one number of concurrent trials."""
    from engines_concurrency import check_memory, nodes, used_swap

    check_memory(trials)
    cpus_per_trial = int(1e4 * args.nodes * args.cpus / trials) / 1e4
    waves = []
    with tempfile.TemporaryDirectory() as folder, nodes(args.nodes, args.cpus) as cluster:
        fixed = {"engine": "ray", "address": cluster.address, "folder": folder, "cpus_per_trial": cpus_per_trial}
        with Arm("crowd", workers=trials, **fixed) as arm:
            for number in range(args.waves + args.brain_waves):
                wave = arm.request(name=f"w{number}", trials=trials, reports=args.reports, brain=number >= args.waves)
                waves.append(wave)
                print(wave, flush=True)
                if not number:
                    sizes = cluster.worker_bytes()
                    print(f"{len(sizes)} workers, {sum(sizes) / 2**30:.1f} GiB together", flush=True)
            return {
                "machine": describe_environment(),
                "cpus_per_trial": cpus_per_trial,
                "waves": waves,
                "worker_bytes": sizes,
                "swapped_bytes": used_swap(),
            }


def checkpoints(args: argparse.Namespace) -> dict[str, Any]:
    """Measures the size of checkpoints, and the time per trial with one checkpoint per epoch."""
    from engines_frozen import checkpoint_bytes

    sizes = {name: checkpoint_bytes(name) for name in ("mobilenet_v2", "resnet50")}
    megabytes = (0, 8, 64)
    rows: dict[str, list[float]] = {str(size): [] for size in megabytes}
    with shared_ray() as address, ExitStack() as stack:
        fixed = {"engine": "ray", "address": address, "workers": 1}
        arms = [stack.enter_context(Arm("noop", **fixed, checkpoint_bytes=size * 10**6)) for size in megabytes]
        for _ in range(args.blocks):
            for size, arm in zip(megabytes, arms, strict=True):
                rows[str(size)].extend(arm.request(trials=args.trials, epochs=10))
    return {"trial_bytes": sizes, "epochs": 10, "seconds": rows}


def decisions(args: argparse.Namespace) -> dict[str, Any]:
    """Times the calls of the search controller in a study that grows without training."""
    import engines_controller

    args.work.mkdir(parents=True, exist_ok=True)
    new_rows = engines_controller.grow_study(args.work, args.finished)
    rows = {row["finished"]: row for row in load(args.out).get("brain", {}).get("built", [])}
    rows |= {row["finished"]: row for row in new_rows}
    concurrent = engines_controller.time_concurrent_trials(args.work, args.running, args.trials)
    tracked = engines_controller.time_tracked_trials(args.work, args.trials)
    return {
        "trials": args.trials,
        "built": [rows[number] for number in sorted(rows)],
        "beside": concurrent,
        "tracked": tracked,
    }


@contextmanager
def shared_ray() -> Any:
    """Starts a local Ray instance that all drivers share; yields its address."""
    os.environ.update(worker_environment())
    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")
    import ray

    # Each arm has a CPU although the workers of the others stay; the plain arms run one trial at a time.
    resources: dict[str, float] = {"function": 1, "class": 1}
    context: Any = ray.init(
        address="local", num_cpus=8, resources=resources, include_dashboard=False, log_to_driver=False
    )
    try:
        yield context.address_info["address"]
    finally:
        ray.shutdown()


def load(out: Path) -> dict[str, Any]:
    """Returns the recorded rows by part; empty without a file."""
    path = out / "bench_engines.json"
    rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return rows


def save(out: Path, part: str, rows: Mapping[str, Any]) -> None:
    """Replaces the rows of a part."""
    out.mkdir(parents=True, exist_ok=True)
    parts = {**load(out), part: {"machine": describe_environment(), **rows}}
    (out / "bench_engines.json").write_text(json.dumps(parts, indent=1) + "\n")


def describe_environment() -> str:
    """Returns the machine, its number of cores and the version of Ray as one line."""
    import ray

    return f"{machine()}, {len(os.sched_getaffinity(0))} cores, Ray {ray.__version__}"


# The names of the commands are the keys of recorded results.
PARTS = {
    "overhead": overhead,
    "workers": workers,
    "crowd": concurrent_trials,
    "brain": decisions,
    "checkpoints": checkpoints,
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="part", required=True)
    parts = {name: commands.add_parser(name) for name in (*PARTS, "report")}
    for part in parts.values():
        part.add_argument("--out", type=Path, default=HERE / "results")
    for name in ("overhead", "checkpoints"):
        parts[name].add_argument("--blocks", type=int, default=4)
        parts[name].add_argument("--trials", type=int, default=10, help="trials per block and arm")
    parts["report"].add_argument("--page", type=Path, default=HERE / "thousand_gpus.md")
    parts["workers"].add_argument("--shared", type=Path, required=True, help="folder with data/ and weights/")
    parts["workers"].add_argument("--image-size", type=int, default=64)
    parts["workers"].add_argument("--jobs", type=int, default=16)
    parts["workers"].add_argument("--rounds", type=int, default=5)
    parts["crowd"].add_argument("--trials", type=int, nargs="*", default=[256])
    parts["crowd"].add_argument("--reports", type=int, default=20)
    parts["crowd"].add_argument("--waves", type=int, default=5)
    parts["crowd"].add_argument("--brain-waves", type=int, default=2)
    parts["crowd"].add_argument("--nodes", type=int, default=4)
    parts["crowd"].add_argument("--cpus", type=int, default=2, help="CPUs per node, as Ray counts them")
    parts["brain"].add_argument("--work", type=Path, required=True, help="folder of the study, which is kept")
    parts["brain"].add_argument("--finished", type=int, nargs="*", default=[200, 500, 1000, 2000])
    parts["brain"].add_argument("--running", type=int, nargs="*", default=[1, 16, 64, 256])
    parts["brain"].add_argument(
        "--trials", type=int, default=30, help="trials to finish per number of concurrent trials"
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Runs a part of the benchmark, or writes the tables."""
    args = parse()
    if args.part == "report":
        text = to_markdown(load(args.out))
        (args.out / "bench_engines.md").write_text(text, encoding="utf-8")
        print(text)
        if all(part in load(args.out) for part in PARTS):
            engines_limits.update_page(args.page, load(args.out))
        return
    save(args.out, args.part, PARTS[args.part](args))


if __name__ == "__main__":
    main()
