"""Benchmark: the trials of a search with one worker per core, alone and beside competing processes.

Compares `nbt search --workers auto` of this checkout with `--workers 1` of another one, such as the first edition, on
real images. A round runs each arm once per load: on an idle machine, and beside one and two single-threaded trainings
that run in sessions of their own, as those of another user do. The arms of a round alternate, so that other changes of
the machine affect both. A search stops after its trials; measured is the time from the start of its first trial to the
end of its last one. The first proposals of the search are random, so that both arms train the same settings.

    python studies/bench_workers.py --base ../base --data ../shared/data/dtd10 \
        --weights ../shared/weights/mobilenet_v2_035-imagenet.pth

Beside other processes, the trials of the first edition take many times longer than alone. A search that exceeds
`--limit` is ended, and counts with the limit: its ratio is then a lower bound. Writes
`studies/results/bench_workers.json` and `.md`; loads that are not measured keep their earlier results.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from machine import machine

REPOSITORY = Path(__file__).resolve().parent.parent
ARMS = ("one worker", "auto")
LOADS = (0, 1, 2)
POLL_SECONDS = 0.2
START_SECONDS = 300.0

COMPETITOR = """
import torch
torch.set_num_threads(1)
layers = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3))
optimizer = torch.optim.SGD(layers.parameters(), lr=1e-4)
images = torch.rand(32, 3, 64, 64)
print("training", flush=True)
while True:
    optimizer.zero_grad()
    layers(images).square().mean().backward()
    optimizer.step()
"""


@contextmanager
def competitors(count: int) -> Iterator[None]:
    """Runs single-threaded trainings, each in a session of its own."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COMPETITOR],
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def search_command(args: argparse.Namespace, workers: str) -> list[str]:
    """Returns the command line of a search whose trials all run to their last epoch."""
    options = {
        "dataset": args.data.resolve(),
        "backbone": args.backbone,
        "weights": args.weights.resolve(),
        "image-size": args.image_size,
        "shots": args.shots,
        "budget": args.trials,
        "epochs": args.epochs,
        "pruner": "none",
        "workers": workers,
        "study": "bench",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "nbt", "search", *words, "--no-heuristics", "-q"]


def run_search(args: argparse.Namespace, arm: str, caches: Path) -> dict[str, Any]:
    """Runs the trials of one search.

    Returns:
        "seconds" from the start of the first trial to the end of the last one, "limited" if the search was ended
        before, and the hash-independent "accuracies" of the trials by number.
    """
    checkout = args.base.resolve() if arm == "one worker" else REPOSITORY
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    environment |= {"PYTHONPATH": str(checkout), "NBT_CACHE": str(caches / arm.replace(" ", "-"))}
    with tempfile.TemporaryDirectory(prefix="bench-workers-") as folder:
        process = subprocess.Popen(
            search_command(args, "1" if arm == "one worker" else "auto"),
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return wait_for_trials(Path(folder) / ".nbt" / "studies.db", process, args)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_trials(database: Path, process: subprocess.Popen[bytes], args: argparse.Namespace) -> dict[str, Any]:
    """Waits until all trials of a search have ended, or the limit is reached."""
    began, first = time.monotonic(), None
    while True:
        time.sleep(POLL_SECONDS)
        trials = read_trials(database)
        if first is None and trials:
            first = time.monotonic()
        done = [trial for trial in trials if trial["end"] is not None]
        if len(done) >= args.trials:
            seconds = (max(trial["end"] for trial in done) - min(trial["start"] for trial in trials)).total_seconds()
            return {"seconds": seconds, "limited": False, "accuracies": [trial["value"] for trial in done]}
        if first is not None and time.monotonic() - first > args.limit:
            return {"seconds": args.limit, "limited": True, "accuracies": [trial["value"] for trial in done]}
        if process.poll() is not None or (first is None and time.monotonic() - began > START_SECONDS + args.limit):
            raise SystemExit(f"the search ended after {len(done)} of {args.trials} trials: {' '.join(process.args)}")  # type: ignore[arg-type]


def read_trials(database: Path) -> list[dict[str, Any]]:
    """Returns start, end and value of each trial of the only study, by number."""
    query = """
        SELECT datetime_start, datetime_complete, value FROM trials LEFT JOIN trial_values USING (trial_id)
        WHERE state != 'FAIL' ORDER BY number
    """
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
            rows = connection.execute(query).fetchall()
    except sqlite3.OperationalError:  # the search has not created its tables yet
        return []
    times = [[None if text is None else datetime.fromisoformat(text) for text in row[:2]] for row in rows]
    return [{"start": start, "end": end, "value": row[2]} for (start, end), row in zip(times, rows, strict=True)]


def rows_of(measured: Mapping[int, Mapping[str, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Returns one row per load: median seconds of the arms, and the median of the ratios within the rounds."""
    idle = statistics.median(run["seconds"] for run in measured[0]["auto"]) if 0 in measured else None
    goals = {0: ">= 1.6x", 1: ">= 8x", 2: "<= 2.5 times idle"}
    rows = []
    for load, runs in measured.items():
        seconds = {arm: [run["seconds"] for run in runs[arm]] for arm in ARMS}
        ratios = [one / auto for one, auto in zip(*(seconds[arm] for arm in ARMS), strict=True)]
        rows.append(
            {
                "competitors": load,
                "rounds": len(ratios),
                **{arm: statistics.median(seconds[arm]) for arm in ARMS},
                "limited": sum(run["limited"] for run in runs["one worker"]),
                "ratio": statistics.median(ratios),
                "lowest_ratio": min(ratios),
                "highest_ratio": max(ratios),
                "relative_to_idle": None if idle is None else statistics.median(seconds["auto"]) / idle,
                "goal": goals[load],
            }
        )
    return rows


def report(rows: list[dict[str, Any]], facts: Mapping[str, Any]) -> str:
    """Returns the results as Markdown."""
    lines = [
        "## Trials of a search with one worker per core",
        "",
        f"{facts['machine']}, {facts['cores']} cores. {facts['trials']} trials of {facts['epochs']} epochs on "
        f"{facts['data']} at {facts['image_size']} px with {facts['shots']} images per class, `{facts['backbone']}`; "
        "medians; ratios within a round, minimum and maximum in brackets.",
        "",
        "| competitors | rounds "
        "| first edition, 1 worker, s | auto, s | first edition / auto | auto / auto idle | goal |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        at_least = ">= " if row["limited"] else ""
        relative = "" if row["relative_to_idle"] is None else f"{row['relative_to_idle']:.2f}"
        lines.append(
            f"| {row['competitors']} | {row['rounds']} | {at_least}{row['one worker']:.1f} | {row['auto']:.1f} | "
            f"{at_least}{row['ratio']:.2f}x ({row['lowest_ratio']:.2f} to {row['highest_ratio']:.2f}) | {relative} | "
            f"{row['goal']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the benchmark and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="checkout to compare with")
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--weights", type=Path, required=True, help="pretrained weights of the backbone")
    parser.add_argument("--backbone", default="mobilenet_v2(width_mult=0.35)")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--shots", type=int, default=80, help="labelled images per class")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loads", type=int, nargs="+", choices=LOADS, default=LOADS, help="competing processes")
    parser.add_argument("--limit", type=float, default=600.0, help="longest time of the trials of a search, s")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "studies" / "results")
    args = parser.parse_args()
    stored = args.out / "bench_workers.json"
    earlier = json.loads(stored.read_text())["runs"] if stored.exists() else {}
    measured: dict[int, dict[str, list[dict[str, Any]]]] = {int(load): runs for load, runs in earlier.items()}
    measured |= {load: {arm: [] for arm in ARMS} for load in args.loads}
    with ExitStack() as stack:
        caches = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-workers-cache-")))
        for number in range(args.rounds):
            for load in args.loads:
                for arm in ARMS if number % 2 == 0 else ARMS[::-1]:
                    with competitors(load):
                        run = run_search(args, arm, caches)
                    measured[load][arm].append(run)
                    limited = ", ended at the limit" if run["limited"] else ""
                    print(f"round {number + 1}, {load} competitors, {arm}: {run['seconds']:.1f} s{limited}", flush=True)
    facts = {
        "machine": machine(),
        "cores": len(os.sched_getaffinity(0)),
        "data": args.data.name,
        **{name: getattr(args, name) for name in ("backbone", "image_size", "shots", "trials", "epochs")},
    }
    rows = rows_of(measured)
    args.out.mkdir(parents=True, exist_ok=True)
    document = {"facts": facts, "rows": rows, "runs": {str(load): runs for load, runs in measured.items()}}
    stored.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    text = report(rows, facts)
    (args.out / "bench_workers.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
