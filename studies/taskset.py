"""Study: is the search of nbt, without anything that it knows of images, better than general tools on TaskSet?

Six tasks of TaskSet (recurrent text classifiers; `../shared/data/taskset`), tables of the same 1000 settings of an
optimiser with eight hyperparameters, 50 points per curve. A search sees the validation loss and is judged by the
regret of its incumbent: the last test loss of the setting that it would return, 0 for the best setting of the table and
1 for the median one, after the epochs of 1 to 20 full runs.

Methods: those of `nbt replay --metric` and two of other packages (`taskset_rivals.py`). "guided" knows the tables of
the other five tasks completely, and the prior of PriorBand is the setting with the best mean rank on them; "without
tables" and all others know nothing. They play no part in the design of the search of images, but their tables were
looked at when `nbt replay --metric` was written, so this is no judgement on unseen tasks.

Rule, on the difference of the mean regret over seeds, paired by task, after 5, 10 and 20 runs: "without tables" has to
be at most that of "tpe+asha", and "guided" at most that of "priorband". A difference is *clear* if its 95 % interval
over the tasks does not contain 0. *Confirmed*: all six are at most 0, and one of each pair is clear; *confirmed in
part*: none is clearly above 0; else *not confirmed*.

    pip install neural-pipeline-search==0.17.0 smac==2.4.1     # for the two rivals; the others run without them
    python studies/taskset.py run --shared ../shared           # resumable; about two hours on two cores
    python studies/taskset.py report

Rows: `studies/results/taskset.jsonl`; the report writes `taskset.md` and `taskset.svg`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import machine
from regrets import Regrets, difference, draw_regrets, mean_regrets
from shards import study_parser
from study_command import run_study
from study_rows import append_row, latest_rows
from taskset_rivals import BUDGET, RIVALS

from nbt.tuning.benchmark.curves.methods import CurveMethod, curve_methods
from nbt.tuning.benchmark.curves.replay import search_regret
from nbt.tuning.benchmark.curves.table import CurveTask, load_curve_task

RESULTS = Path(__file__).parent / "results"
ROWS, REPORT, FIGURE = (RESULTS / f"taskset.{suffix}" for suffix in ("jsonl", "md", "svg"))
SEEDS = 10
AMOUNTS = (5, 10, 20)
PAIRS = (("without tables", "tpe+asha"), ("guided", "priorband"))
OURS = {ours for ours, _ in PAIRS}
METHODS: dict[str, tuple[str, CurveMethod]] = {**curve_methods(), **RIVALS}
Row = dict[str, Any]


def main() -> None:
    """Runs the searches, or writes table and figure."""
    parser, run = study_parser(__doc__, ROWS, "search")
    run.add_argument("--seeds", type=int, default=SEEDS, help="searches of each method on each task")
    run.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    run_study(parser.parse_args(), run_all, summarise, draw_figure, REPORT, FIGURE)


def load_tasks(shared: Path) -> list[CurveTask]:
    """Returns the tasks."""
    return [
        load_curve_task(path, metric="valid_loss", judge="test_loss", minimize=True, initial=True)
        for path in sorted((shared / "data" / "taskset").glob("*.parquet"))
    ]


def run_all(args: argparse.Namespace) -> None:
    """Runs every N-th search that has no row yet, seed by seed."""
    tasks, deadline = load_tasks(args.shared), time.monotonic() + 60 * args.minutes
    part, parts = map(int, args.shard.split("/"))
    keys = [(seed, task.name, name) for seed in range(args.seeds) for task in tasks for name in args.methods]
    done = {(row["seed"], row["dataset"], row["arm"]) for row in latest_rows(args.rows)}
    for seed, task_name, name in keys[part::parts]:
        if (seed, task_name, name) in done:
            continue
        if time.monotonic() > deadline:
            return
        [task] = [task for task in tasks if task.name == task_name]
        append_row(args.rows, search(name, task, [other for other in tasks if other is not task], seed))


def search(name: str, task: CurveTask, others: Sequence[CurveTask], seed: int) -> Row:
    """Runs one search and returns its row."""
    started = time.process_time()
    amounts = range(1, BUDGET + 1)
    regret, _ = search_regret(METHODS[name][1], task, others, seed=seed, budget=BUDGET, amounts=amounts)
    return {
        "arm": name,
        "dataset": task.name,
        "seed": seed,
        "regret": [round(value, 5) for value in regret.tolist()],
        "cpu_seconds": round(time.process_time() - started, 1),
        "machine": machine(),
    }


def verdict(regrets: Regrets) -> str:
    """Returns the verdict by the rule of the docstring."""
    if any(name not in regrets for pair in PAIRS for name in pair):
        return "no verdict yet"
    pairs = [[difference(regrets, *pair, amount) for amount in AMOUNTS] for pair in PAIRS]
    if all(mean <= 0 for pair in pairs for mean, _, _ in pair) and all(
        any(high < 0 for _, _, high in pair) for pair in pairs
    ):
        return "confirmed"
    return "confirmed in part" if all(low <= 0 for pair in pairs for _, low, _ in pair) else "not confirmed"


def summarise(rows: Sequence[Row]) -> str:
    """Returns the report."""
    regrets, seeds = mean_regrets(rows, METHODS)
    if not regrets:
        return "# Search methods on TaskSet\n\nNo method has a search on every task yet.\n"
    machines = ", ".join(sorted({row["machine"] for row in rows}))
    tasks = len(next(iter(regrets.values())))
    seconds = {name: statistics.fmean(row["cpu_seconds"] for row in rows if row["arm"] == name) for name in regrets}
    lines = [
        "# Search methods on TaskSet",
        "",
        f"{tasks} tasks, {seeds} seeds; {machines}. `studies/taskset.py` describes the study. **{verdict(regrets)}**",
        "",
        "Regret after the epochs of so many full runs, mean over tasks and seeds: 0 is the best setting of a table, 1 "
        "the median one. CPU seconds of a search are the overhead of the method, since nothing is trained.",
        "",
        f"| method | {' | '.join(f'after {n}' for n in AMOUNTS)} | CPU s |",
        "|---|" + "---|" * (len(AMOUNTS) + 1),
        *(
            f"| {name} | {' | '.join(f'{values[:, n - 1].mean():.3f}' for n in AMOUNTS)} | {seconds[name]:.0f} |"
            for name, values in regrets.items()
        ),
        "",
        "Differences, paired by task, with their 95 % interval over the tasks (negative: the first is better):",
        "",
        f"| methods | {' | '.join(f'after {n}' for n in AMOUNTS)} |",
        "|---|" + "---|" * len(AMOUNTS),
    ]
    for ours, _ in PAIRS:
        for other in (name for name in regrets if name not in OURS):
            if ours in regrets:
                cells = [difference(regrets, ours, other, amount) for amount in AMOUNTS]
                texts = [f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" for mean, low, high in cells]
                lines.append(f"| {ours} - {other} | {' | '.join(texts)} |")
    descriptions = [f"- {name}: {METHODS[name][0]}" for name in regrets]
    return "\n".join([*lines, "", "Methods:", "", *descriptions, ""])


def draw_figure(rows: Sequence[Row], path: Path) -> None:
    """Draws the mean regret of every method by the number of full runs."""
    draw_regrets(mean_regrets(rows, METHODS)[0], OURS, "regret", path)


if __name__ == "__main__":
    main()
