"""Study: how much does the first command of the README gain, and how long does it take?

Runs the README's first command with different seeds, each as a new user would: as a process of its own, in an empty
folder and with an empty cache, so that the source model is trained again. A seed draws other labelled images, other
splits and another search; the test images are the same. Every run stores the test accuracy of the recommendation and of
the default recipe, their paired difference with its interval over the images, and the wall-clock and CPU seconds of the
whole command.

    python studies/demo.py run --seeds 20        # resumable; stores one line per seed
    python studies/demo.py report

Results: `studies/results/demo.{jsonl,md}`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from machine import machine
from study_rows import append_row, read_rows

from nbt.report.settings_table import recipe_summary
from nbt.settings import TransferSettings
from nbt.tuning.intervals import t_interval

HERE = Path(__file__).parent
ROWS, REPORT = HERE / "results" / "demo.jsonl", HERE / "results" / "demo.md"
COMMAND = ("search", "--dataset", "numbers", "--shots", "8", "--budget", "12")
GOAL_POINTS, GOAL_SECONDS = 2.0, 90.0


def main() -> None:
    """Runs the searches or writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run searches that are not stored yet")
    run.add_argument("--seeds", type=int, default=20, help="number of seeds, from 0 on")
    commands.add_parser("report", help="write the report of the stored searches")
    args = parser.parse_args()
    if args.command == "report":
        REPORT.write_text(report(read_rows(ROWS)), encoding="utf-8")
        return
    for seed in sorted(set(range(args.seeds)) - {row["seed"] for row in read_rows(ROWS)}):
        row = search(COMMAND, seed)
        append_row(ROWS, row)


def search(command: Sequence[str], seed: int) -> dict[str, Any]:
    """Runs the command with a seed in an empty folder, and returns its row."""
    command = [*command, "--seed", str(seed)]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NBT_CACHE": f"{folder}/cache", "PYTHONPATH": str(HERE.parent)}
        started, before = time.perf_counter(), _cpu_seconds()
        done = subprocess.run(
            [sys.executable, "-m", "nbt", *command, "--json", "-q"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        seconds, cpu = time.perf_counter() - started, _cpu_seconds() - before
    result = json.loads(done.stdout)
    return {
        "command": f"nbt {' '.join(command)}",
        "seed": seed,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "load": round(os.getloadavg()[0], 1),
        "settings": _changed_settings(result["recommended"]),
        "verdict": result["verdict"],
        "test": {name: result["test"][name]["mean"] for name in ("recommended", "baseline")},
        "test_images": result["test"]["recommended"]["n"],
        "difference": result["test_difference"],
        "trials": result["trials"],
        "machine": machine(),
    }


def _changed_settings(settings: dict[str, Any]) -> dict[str, Any]:
    default = TransferSettings().to_dict()
    return {name: value for name, value in settings.items() if value != default[name]}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the report: a summary, and a table of all searches."""
    gains = [row["test"]["recommended"] - row["test"]["baseline"] for row in rows]
    mean = t_interval(gains)
    told = [row for row in rows if row["difference"] and row["difference"]["low"] > 0]
    worse = [row for row in rows if row["difference"] and row["difference"]["high"] < 0]
    reached = sum(round(100 * gain, 6) >= GOAL_POINTS for gain in gains)
    seconds = [row["seconds"] for row in rows]
    lines = [
        "# The first command of the README",
        "",
        f"`nbt {' '.join(COMMAND)} --seed N`, each in an empty folder with an empty cache; {rows[0]['machine']}. "
        "`studies/demo.py` describes the study. Test accuracy in per cent.",
        "",
        "| what | measured | goal |",
        "|---|---|---|",
        f"| gain over the default recipe, mean over {len(rows)} seeds | {100 * mean.mean:+.1f} points "
        f"({_bounds(mean.low, mean.high)}) |  |",
        f"| seeds with a gain of at least {GOAL_POINTS:g} points | {reached} of {len(rows)} | most |",
        f"| seeds in which the screen says better / cannot tell / worse | {len(told)} / "
        f"{len(rows) - len(told) - len(worse)} / {len(worse)} |  |",
        f"| seconds of the whole command, median and maximum | {median(seconds):.0f}, {max(seconds):.0f} "
        f"| <= {GOAL_SECONDS:g} |",
        f"| CPU seconds, median | {median(row['cpu_seconds'] for row in rows):.0f} |  |",
        "",
        "The load is that of the machine at the end of the command, which runs two workers: more than about 2 means "
        "that other programs used the cores as well. Differences have their 95 % interval over the test images.",
        "",
        "| seed | recommended | default recipe | difference | settings | trials | seconds | CPU seconds | load |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["seed"]):
        test, difference = row["test"], row["difference"]
        recipe = recipe_summary(TransferSettings(**row["settings"]))
        bounds = f" ({_bounds(difference['low'], difference['high'])})" if difference else ""
        lines.append(
            f"| {row['seed']} | {100 * test['recommended']:.1f} | {100 * test['baseline']:.1f} "
            f"| {100 * (test['recommended'] - test['baseline']):+.1f}{bounds} | {recipe} "
            f"| {sum(row['trials'].values())} | {row['seconds']:.0f} | {row['cpu_seconds']:.0f} | {row['load']:.1f} |"
        )
    return "\n".join([*lines, ""])


def _bounds(low: float | None, high: float | None) -> str:
    return "no interval" if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}"


if __name__ == "__main__":
    main()
