"""Benchmark: the duration of a whole search, its parts, and how right its first estimate is.

Runs `nbt search` of this checkout and of another one, such as the first edition, with the same data and budget. Runs of
the two arms alternate, so that other changes of the machine affect both. The times are those of the lines of progress:
the start of the process, the name of the study (the trials start), the start of the finals, and the end of the process.
Two goals: the whole takes at most 1.5 times the trials, and what follows the trials (finals, last training, report) at
most half of the time of the other checkout. The first estimate should be within 30 % of the whole, and on the screen
within ten seconds. Both arms find data sets, pretrained weights and models of tables in their caches, but measure the
fit; a third arm, *cold*, is this checkout with empty caches, as after the installation.

    python studies/bench_clock.py --base ../base --budget 20 --rounds 2

A round on two idle cores takes about six minutes on digits. Writes `studies/results/bench_clock.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from machine import machine

REPOSITORY = Path(__file__).resolve().parent.parent
ARMS = ("base", "this", "cold")
MARKS = {"study ": "trials", "finals: ": "finals", "the whole search takes": "estimate"}
"""Start of a line of progress -> what starts with it."""


def run_search(args: argparse.Namespace, arm: str, caches: Path, budget: str) -> dict[str, float]:
    """Runs one search.

    Returns:
        Seconds of "before" (until the first trial), "trials", "after" them, and the "whole"; of this checkout also the
        "estimate" of the whole and when it was on the screen, "estimated_at".
    """
    checkout = args.base.resolve() if arm == "base" else REPOSITORY
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    environment |= {"PYTHONPATH": str(checkout), "NBT_CACHE": str(caches / arm)}
    words = [
        sys.executable,
        "-m",
        "nbt",
        "search",
        "--dataset",
        args.dataset,
        "--budget",
        budget,
        "--json",
        *args.option,
    ]
    # Each search measures its fit profile, and one with empty caches prepares everything.
    shutil.rmtree(caches / arm if arm == "cold" else caches / arm / "fit", ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="bench-clock-") as folder:
        started = time.monotonic()
        process = subprocess.Popen(
            words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stderr is not None
        marks: dict[str, float] = {}
        for line in process.stderr:
            for start, name in MARKS.items():
                if line.startswith(start):
                    marks.setdefault(name, time.monotonic() - started)
        result = json.loads(process.stdout.read() or "{}")
        if process.wait():
            raise SystemExit(f"{arm}: the search ended with exit code {process.returncode}")
        whole = time.monotonic() - started
    seconds = {
        "before": marks["trials"],
        "trials": marks["finals"] - marks["trials"],
        "after": whole - marks["finals"],
        "whole": whole,
    }
    if "estimate" in marks:
        seconds |= {"estimate": result["clock"]["estimate"], "estimated_at": marks["estimate"]}
    return seconds


def summarise(rounds: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Returns the medians of the two goals, and of the estimates the largest error and the latest moment."""
    this, base, cold = rounds["this"], rounds["base"], rounds["cold"]
    return {
        "whole_over_trials": statistics.median(run["whole"] / run["trials"] for run in this),
        "whole_over_trials_base": statistics.median(run["whole"] / run["trials"] for run in base),
        "after_over_base": statistics.median(a["after"] / b["after"] for a, b in zip(this, base, strict=True)),
        "largest_error_of_estimate": max(abs(run["estimate"] / run["whole"] - 1.0) for run in [*this, *cold]),
        "latest_estimate_at": max(run["estimated_at"] for run in this),
        "latest_estimate_at_with_empty_caches": max(run["estimated_at"] for run in cold),
    }


def report(args: argparse.Namespace, rounds: Mapping[str, Sequence[Mapping[str, float]]], facts: str) -> str:
    """Returns the result as Markdown."""
    lines = ["# Duration of a whole search", "", f"{args.dataset}, budget {args.budget}; {facts}", ""]
    lines += ["| round | arm | before the trials | trials | after them | whole | estimate | said after |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for index in range(args.rounds):
        for arm in ARMS:
            run = rounds[arm][index]
            names = ("before", "trials", "after", "whole", "estimate", "estimated_at")
            cells = [f"{run[name]:.1f} s" if name in run else "-" for name in names]
            lines.append(f"| {index + 1} | {arm} | {' | '.join(cells)} |")
    lines += ["", *(f"- {name.replace('_', ' ')}: {value:.2f}" for name, value in summarise(rounds).items()), ""]
    return "\n".join(lines)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="checkout of the version to compare with")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--budget", default="20")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--option", action="append", default=[], help="another option of nbt search, as --option=--seed=1"
    )
    parser.add_argument("--out", type=Path, default=REPOSITORY / "studies" / "results")
    args = parser.parse_args()
    rounds: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory(prefix="bench-clock-caches-") as caches:
        for arm in ("base", "this"):  # datasets, pretrained weights and models are in the caches afterwards
            run_search(args, arm, Path(caches), "1")
        for index in range(args.rounds):
            for arm in ARMS if index % 2 == 0 else ARMS[::-1]:
                rounds[arm].append(run_search(args, arm, Path(caches), args.budget))
                print(arm, {name: round(value, 1) for name, value in rounds[arm][-1].items()}, flush=True)
    document: dict[str, Any] = {
        "machine": machine(),
        "date": datetime.now().isoformat(timespec="seconds"),
        "options": {"dataset": args.dataset, "budget": args.budget, "options": args.option},
        "rounds": rounds,
        "summary": summarise(rounds),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "bench_clock.json").write_text(json.dumps(document, indent=2) + "\n")
    (args.out / "bench_clock.md").write_text(report(args, rounds, document["machine"]))


if __name__ == "__main__":
    main()
