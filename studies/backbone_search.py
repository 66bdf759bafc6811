"""Study: does a search over several backbones find the right one?

A search chooses among the four shared networks on three judging data sets, as a user runs it; its process is killed
once, after a quarter of the budget, and the same command resumes it. It is compared with what a user without a search
does: the tuned default, with which `nbt train` trains without settings, on each of the four networks, with the same
training, validation and test images. The *best* and the *average* network are those of that recipe by test accuracy,
which favours the best one, because the test images choose it.

Rule: *confirmed* if, in the mean over the data sets, the recommendation of the search is at most one point below the
best network and at least three points above the average one; *confirmed in part* if only one of the two holds; else
*not confirmed*. The report also has the network that ImageNet accuracy chooses (`timm:tf_efficientnet_lite0`), and the
difference between the best network and the one that was recommended, both with the tuned default, which is what the
choice alone costs. Three data sets with one seed each give no interval that decides; the report has it nevertheless.
Searches on each single network at the same cost would take four times as long, and were left out.

    python studies/backbone_search.py run --shared ../shared      # resumable; about an hour on two idle cores
    python studies/backbone_search.py report

Rows: `studies/results/backbone_search.jsonl`; the report writes `backbone_search.md`.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from command_line import run_and_report_parser
from machine import machine
from nbt_command import REPOSITORY, run_nbt
from study_rows import append_row, read_rows

from nbt.tuning.intervals import t_interval
from nbt.tuning.storage.database import resolve_storage
from nbt.tuning.storage.studies import list_studies

RESULTS = Path(__file__).resolve().parent / "results"
ROWS, REPORT = RESULTS / "backbone_search.jsonl", RESULTS / "backbone_search.md"
SEARCH = "search"
DATASETS = ("scene15", "pbc8", "signdigits10")
BACKBONES = {
    "mobilenet_v2(width_mult=0.35)": "mobilenet_v2_035-imagenet.pth",
    "mobilenet_v2": "mobilenet_v2-imagenet.pth",
    "squeezenet1_0": "squeezenet1_0-imagenet.pth",
    "timm:tf_efficientnet_lite0": "tf_efficientnet_lite0-imagenet-fp16.pth",
}
IMAGENET_CHOICE = "timm:tf_efficientnet_lite0"
BUDGET, KILLED_AFTER, IMAGE_SIZE, SEED = 20, 5, 64, 0
MAX_BELOW_BEST, MIN_ABOVE_AVERAGE = 0.01, 0.03
Row = dict[str, Any]


def main() -> None:
    """Runs searches and trainings, or writes the report."""
    parser, run = run_and_report_parser(__doc__, ROWS)
    run.add_argument("--datasets", nargs="+", default=list(DATASETS))
    run.add_argument("--budget", type=int, default=BUDGET)
    args = parser.parse_args()
    if args.command == "report":
        args.rows.with_suffix(".md").write_text(summarise(read_rows(args.rows)), encoding="utf-8")
        return
    done = {(row["dataset"], row["arm"]) for row in read_rows(args.rows)}
    for dataset in args.datasets:
        for arm in (SEARCH, *BACKBONES):
            if (dataset, arm) not in done:
                row = search(dataset, args) if arm == SEARCH else train(dataset, arm, args)
                append_row(args.rows, {"dataset": dataset, "arm": arm, **row, "machine": machine()})
                print(dataset, arm, f"test {row['test']:.3f}, {row['seconds']} s", flush=True)


def search(dataset: str, args: argparse.Namespace) -> Row:
    """Searches over the four networks, kills the search once and resumes it; returns its row."""
    shared, started = args.shared.resolve(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"backbones-{dataset}-") as path:
        folder = Path(path)
        listed = [{"name": name, "weights": str(shared / "weights" / file)} for name, file in BACKBONES.items()]
        (folder / "list.yaml").write_text(yaml.safe_dump(listed), encoding="utf-8")
        options = {
            "dataset": shared / "data" / dataset,
            "backbones": folder / "list.yaml",
            "image-size": IMAGE_SIZE,
            "seed": SEED,
            "budget": args.budget,
            "study": "backbones",
            "out": folder / "reports",
        }
        killed = start_and_kill(folder, options, args.budget * KILLED_AFTER // BUDGET)
        result = run_nbt("search", folder, options)
    keys = (
        "name",
        "parameters",
        "latency",
        "relative_cost",
        "expected_accuracy",
        "trials",
        "epochs",
        "seconds",
        "best",
    )
    return {
        "killed_after": killed,
        "backbone": next(found["name"] for found in result["candidates"] if found["recommended"]),
        "test": result["test"]["recommended"]["value"],
        "default": result["test"]["baseline"]["value"],
        "n_test": result["test"]["recommended"]["n"],
        "candidates": [{key: found[key] for key in keys} for found in result["candidates"]],
        "settings": result["recommended"],
        "trials": result["trials"],
        "clock": {key: round(value, 1) for key, value in result["clock"].items()},
        "seconds": round(time.monotonic() - started),
    }


def start_and_kill(folder: Path, options: Mapping[str, object], trials: int) -> int:
    """Starts a search and kills its processes after so many ended trials; returns their number.

    Raises:
        RuntimeError: The search ended before.
    """
    command = [sys.executable, "-m", "nbt", "search", *(f"--{key}={value}" for key, value in options.items())]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "NBT_CACHE": str(folder / "cache")}
    storage = resolve_storage(None, folder)
    with (folder / "killed.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        while (ended := _ended_trials(storage)) < trials:
            if process.poll() is not None:
                raise RuntimeError(f"the search ended with {ended} trials: {(folder / 'killed.log').read_text()}")
            time.sleep(0.5)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return ended


def _ended_trials(storage: str) -> int:
    return sum(count for study in list_studies(storage) for state, count in study.trials.items() if state != "running")


def train(dataset: str, backbone: str, args: argparse.Namespace) -> Row:
    """Trains the tuned default on one network; returns its row."""
    shared, started = args.shared.resolve(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"backbones-{dataset}-") as path:
        options = {
            "dataset": shared / "data" / dataset,
            "backbone": backbone,
            "weights": shared / "weights" / BACKBONES[backbone],
            "image-size": IMAGE_SIZE,
            "seed": SEED,
        }
        result = run_nbt("train", Path(path), options)
    test = result["test"]
    return {"test": test["value"], "n_test": test["n"], "seconds": round(time.monotonic() - started)}


def compare(rows: Sequence[Row]) -> list[Row]:
    """Returns a comparison for each data set with a search and all four trainings, in the order of the rows."""
    found: list[Row] = []
    for search in (row for row in rows if row["arm"] == SEARCH):
        tests = {
            row["arm"]: row["test"] for row in rows if row["dataset"] == search["dataset"] and row["arm"] != SEARCH
        }
        if set(tests) == set(BACKBONES):
            best = max(tests, key=lambda name: tests[name])
            found.append(
                {
                    "dataset": search["dataset"],
                    "search": search["test"],
                    "chosen": search["backbone"],
                    "best": best,
                    "best_test": tests[best],
                    "average_test": statistics.fmean(tests.values()),
                    "imagenet_test": tests[IMAGENET_CHOICE],
                    "chosen_test": tests[search["backbone"]],
                }
            )
    return found


def verdict(found: Sequence[Row]) -> str:
    """Returns the verdict of the rule in the docstring of the module."""
    near_best = statistics.fmean(row["search"] - row["best_test"] for row in found) >= -MAX_BELOW_BEST
    above_average = statistics.fmean(row["search"] - row["average_test"] for row in found) >= MIN_ABOVE_AVERAGE
    if near_best and above_average:
        return "confirmed"
    return "confirmed in part" if near_best or above_average else "not confirmed"


def summarise(rows: Sequence[Row]) -> str:
    """Returns the report."""
    found = compare(rows)
    lines = [
        "# Searches over four backbones",
        "",
        f"{len(found)} of {len(DATASETS)} data sets, budget {BUDGET}, {IMAGE_SIZE} px, seed {SEED}; "
        f"{rows[0]['machine']}. Described in `studies/backbone_search.py`.",
        "",
    ]
    if len(found) == len(DATASETS):
        lines += [f"**{verdict(found).capitalize()}.** In points of test accuracy, with Student's 95 % intervals:", ""]
        lines += [_difference_line(found, "search", key, text) for key, text in _COMPARED.items()]
        lines += [_difference_line(found, "chosen_test", "best_test", "network of the search minus best network"), ""]
    lines += [
        "| data set | search, test | its network | best network | its test | average | by ImageNet accuracy "
        "| trials by network | killed after | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    searches = {row["dataset"]: row for row in rows if row["arm"] == SEARCH}
    for row in found:
        search = searches[row["dataset"]]
        trials = ", ".join(f"{each['name']} {each['trials']}" for each in search["candidates"])
        lines.append(
            f"| {row['dataset']} | {row['search']:.3f} | {row['chosen']} | {row['best']} | {row['best_test']:.3f} "
            f"| {row['average_test']:.3f} | {row['imagenet_test']:.3f} | {trials} | {search['killed_after']} "
            f"| {search['seconds']} |"
        )
    return "\n".join([*lines, ""])


_COMPARED = {
    "best_test": "search minus tuned default on the best network",
    "average_test": "search minus tuned default on the average network",
    "imagenet_test": "search minus tuned default on the network with the best ImageNet accuracy",
}


def _difference_line(found: Sequence[Row], minuend: str, subtrahend: str, text: str) -> str:
    interval = t_interval([100 * (row[minuend] - row[subtrahend]) for row in found])
    ends = "" if interval.low is None else f" ({interval.low:.1f} to {interval.high:.1f})"
    return f"- {text}: {interval.mean:+.1f}{ends}"


if __name__ == "__main__":
    main()
