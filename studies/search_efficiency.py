"""Study: does a search that knows other data sets need less training than general tools, and by which of its parts?

Replays of every search method on the recorded tables of the ten judging data sets (`recorded/judging/`: the default
recipe and random settings of depth, rates and mix, 12 epochs each), with the recorded tables that come with nbt, which
are of other data sets, as experience. A search has the epochs of 20 full runs, sees validation results, and is judged
after each full run by the test accuracy of its incumbent, without the noise of seeds and test images; regret is its
distance from the best setting of the table, in points. These tables played no part in the design of the search.

Methods: the general ones of `nbt replay`, which know no experience, and *guided*, the default search, with its parts
and variations. The tuned default, which a search runs first, is not in the tables.

Rule, on the mean regret over seeds, *guided* minus the others, with Student's intervals over the data sets. The *mark*
of a data set is the regret at the end of the general method that ends best on it, which favours the general methods.
*Confirmed*: *guided* stays at the mark on every data set, from a run on that is within the first third in the median,
and is clearly below "tpe+asha" after 5, 10 or 20 runs; *confirmed in part*: only the last of these holds, and it is
clearly above "tpe+asha" at none; else *not confirmed*. *Clearly*: the 95 % interval does not contain 0. A stop is
*false* if the recorded run has a higher validation accuracy than all that the search had finished before.

    python studies/search_efficiency.py run --shared ../shared      # resumable; about 15 minutes on two cores
    python studies/search_efficiency.py report

Rows: `studies/results/search_efficiency.jsonl`; the report writes `search_efficiency.md` and `.svg`.
`nbt replay studies/recorded/judging/*.parquet --experience shipped --seeds 5 --budget 20` runs the same searches of the
general methods and *guided*.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from regrets import Regrets, difference, draw_regrets, mean_regrets, tasks_of
from shards import study_parser
from study_command import run_study
from study_rows import append_row, latest_rows

from nbt.tuning.benchmark.ground_truth import GroundTruth, estimate_ground_truth
from nbt.tuning.benchmark.methods import get_method, leave_dataset_out, method_names
from nbt.tuning.benchmark.metrics import incumbent_path, regret_curve
from nbt.tuning.benchmark.runner import replay_search
from nbt.tuning.benchmark.simulated_engine import ReplayedTrial
from nbt.tuning.benchmark.tabular import TabularBenchmark
from nbt.tuning.experience.folder import load_experience
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.intervals import wilson_interval
from nbt.tuning.space.space import Space

HERE = Path(__file__).resolve().parent
TABLES = HERE / "recorded" / "judging"
ROWS, REPORT, FIGURE = (HERE / "results" / f"search_efficiency.{suffix}" for suffix in ("jsonl", "md", "svg"))
SEEDS, BUDGET, AMOUNTS = 5, 20, (5, 10, 20)
GUIDED, RIVAL = "guided", "tpe+asha"
GENERAL = tuple(name for name in method_names(ablations=False) if name != GUIDED)
MAX_SHARE = 1 / 3
Row = dict[str, Any]


def main() -> None:
    """Runs the searches, or writes table and figure."""
    parser, run = study_parser(__doc__, ROWS, "data set")
    run.add_argument("--tables", type=Path, default=TABLES, help="folder of the recorded tables")
    run.add_argument("--seeds", type=int, default=SEEDS, help="searches of each method on each table")
    run.add_argument("--methods", nargs="+", default=method_names(), choices=method_names())
    run_study(parser.parse_args(), run_all, summarise, draw_figure, REPORT, FIGURE)


def run_all(args: argparse.Namespace) -> None:
    """Runs the searches without a row on every N-th table, seed by seed."""
    space, deadline = Space.load("non_binary"), time.monotonic() + 60 * args.minutes
    part, parts = map(int, args.shard.split("/"))
    experience = load_experience(None, space)
    tables = [RecordedTable.load(path) for path in sorted(args.tables.glob("*.parquet"))[part::parts]]
    tasks = [ReplayTask(table, experience, space) for table in tables]
    if tasks:
        tasks[0].search(GUIDED, 0)  # fits the models of the recorded tables, which all searches share
    done = {(row["arm"], row["dataset"], row["seed"]) for row in latest_rows(args.rows)}
    for seed in range(args.seeds):
        for task in tasks:
            for name in args.methods:
                if (name, task.name, seed) not in done and time.monotonic() < deadline:
                    append_row(args.rows, task.search(name, seed))


class ReplayTask:
    """A recorded table with what a search on it may know.

    Args:
        table: The table.
        experience: Recorded tables; those of the data set are left out.
        space: Search space.
    """

    def __init__(self, table: RecordedTable, experience: Sequence[RecordedTable], space: Space) -> None:
        self.name = table.header.dataset
        self._benchmark = TabularBenchmark(table, space)
        self._truth: GroundTruth = estimate_ground_truth(self._benchmark)
        self._experience = leave_dataset_out(experience, table)

    def search(self, name: str, seed: int) -> Row:
        """Runs one search of a method and returns its row."""
        benchmark, truth, started = self._benchmark, self._truth, time.process_time()
        trials = replay_search(
            benchmark, get_method(name), experience=self._experience, seed=seed, budget=min(BUDGET, len(truth.test))
        )
        seconds = time.process_time() - started
        path = incumbent_path(trials, benchmark, BUDGET * benchmark.length)
        chance = 1 / int(benchmark.header.facts["classes"])
        regret = 100 * regret_curve(path, truth.smoothed, truth.best, chance)
        stopped, false = self._stops(trials)
        return {
            "arm": name,
            "dataset": self.name,
            "seed": seed,
            "regret": [round(float(value), 3) for value in regret[benchmark.length - 1 :: benchmark.length]],
            "stopped": stopped,
            "false_stops": false,
            "cpu_seconds": round(seconds, 1),
            "machine": machine(),
        }

    def _stops(self, trials: Sequence[ReplayedTrial]) -> tuple[int, int]:
        """Returns the numbers of stopped trials and of those whose run would have been the best so far."""
        stopped, false, best = 0, 0, 0.0
        for trial in trials:
            accuracy = self._benchmark.settings[trial.setting].runs[trial.run].val_accuracy
            if trial.stopped is None:
                best = max(best, accuracy)
            else:
                stopped, false = stopped + 1, false + (accuracy > best)
        return stopped, false


def shares_to_mark(regrets: Regrets) -> list[float]:
    """Returns, per data set, the share of the runs after which *guided* stays at the mark; infinite if it does not."""
    ends = np.stack([values[:, -1] for name, values in regrets.items() if name in GENERAL])
    is_above = regrets[GUIDED] > ends.min(axis=0)[:, None] + 1e-9
    runs = is_above.shape[1]
    last_above = [np.flatnonzero(row)[-1] + 1 if row.any() else 0 for row in is_above]
    return [math.inf if last == runs else (int(last) + 1) / runs for last in last_above]


def verdict(regrets: Regrets) -> str:
    """Returns the verdict by the rule of the docstring."""
    if any(name not in regrets for name in (GUIDED, *GENERAL)):
        return "no verdict yet"
    differences = [difference(regrets, GUIDED, RIVAL, amount) for amount in AMOUNTS]
    is_clearly_better = any(high < 0 for _, _, high in differences)
    shares = shares_to_mark(regrets)
    if is_clearly_better and statistics.median(shares) <= MAX_SHARE and math.isfinite(max(shares)):
        return "confirmed"
    is_clearly_worse = any(low > 0 for _, low, _ in differences)
    return "confirmed in part" if is_clearly_better and not is_clearly_worse else "not confirmed"


def summarise(rows: Sequence[Row]) -> str:
    """Returns the report."""
    regrets, seeds = mean_regrets(rows, method_names())
    if not {GUIDED, RIVAL} <= set(regrets):
        return "# Search methods on recorded curves\n\nToo few searches are complete.\n"
    names, machines = tasks_of(rows), ", ".join(sorted({row["machine"] for row in rows}))
    seconds = {name: statistics.fmean(row["cpu_seconds"] for row in rows if row["arm"] == name) for name in regrets}
    columns = [f"after {amount}" for amount in AMOUNTS]
    lines = [
        "# Search methods on recorded curves",
        "",
        f"{len(names)} judging data sets, {seeds} seeds, a budget of {BUDGET} full runs; {machines}. "
        f"`studies/search_efficiency.py` describes the study. **{verdict(regrets).capitalize()}**",
        "",
        "Regret in points of test accuracy after so many full runs, mean over data sets and seeds, and *guided* minus "
        "the method, paired by data set, with its 95 % interval. CPU seconds are the overhead of a search, without the "
        "models of the recorded tables, which are fitted once.",
        "",
        f"| method | {' | '.join(columns)} | CPU s | {' | '.join(f'difference {column}' for column in columns)} |",
        "|---|" + "---|" * (2 * len(columns) + 1),
        *(f"| {name} | {' | '.join(_cells(regrets, name, seconds[name]))} |" for name in regrets),
        "",
        *_mark_lines(regrets, names),
        "",
        *_stop_lines(rows, regrets),
        "",
        "Methods:",
        "",
        *(f"- {name}: {get_method(name).description}" for name in regrets),
        "",
    ]
    return "\n".join(lines)


def _cells(regrets: Regrets, name: str, seconds: float) -> list[str]:
    """Returns the cells of a method in the table of regrets."""
    values = [f"{regrets[name][:, amount - 1].mean():.2f}" for amount in AMOUNTS]
    found = [difference(regrets, GUIDED, name, amount) for amount in AMOUNTS] if name != GUIDED else []
    differences = [f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]" for mean, low, high in found]
    return [*values, f"{seconds:.1f}", *(differences or [""] * len(AMOUNTS))]


def _mark_lines(regrets: Regrets, names: Sequence[str]) -> list[str]:
    """Returns the table of the runs that *guided* needs to be at the mark of every data set."""
    general = [name for name in regrets if name in GENERAL]
    shares, rows = shares_to_mark(regrets), []
    for index, name in enumerate(names):
        best = min(general, key=lambda method: float(regrets[method][index, -1]))
        share = shares[index]
        runs = f"{share * BUDGET:.0f}" if math.isfinite(share) else "never"
        first = regrets[RIVAL][index, 0]  # a search with baselines runs the default recipe first
        ends = f"{regrets[best][index, -1]:.2f} | {regrets[GUIDED][index, -1]:.2f}"
        rows.append(f"| {name} | {first:.2f} | {best} | {ends} | {runs} |")
    median = statistics.median(shares)
    return [
        f"Full runs after which the mean regret of *guided* stays at the mark; in the median {median:.2f} of all.",
        "",
        "The regret of the default recipe is the ceiling of every gain on a table.",
        "",
        "| data set | regret of the default recipe | best general method | its regret at the end | that of *guided* | "
        "runs of *guided* to the mark |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def _stop_lines(rows: Sequence[Row], regrets: Regrets) -> list[str]:
    """Returns the table of the stopped trials."""
    lines = ["| method | stopped | false | rate | 95 % interval |", "|---|---|---|---|---|"]
    for name in regrets:
        stopped, false = (sum(row[key] for row in rows if row["arm"] == name) for key in ("stopped", "false_stops"))
        if stopped:
            found = wilson_interval(false / stopped, stopped)
            rate = f"{false / stopped:.1%} | {found.low:.1%} to {found.high:.1%}"
            lines.append(f"| {name} | {stopped} | {false} | {rate} |")
    return lines


def draw_figure(rows: Sequence[Row], path: Path) -> None:
    """Draws the mean regret of the methods by the number of full runs, without the parts and variations of ours."""
    regrets, _ = mean_regrets(rows, (*GENERAL, GUIDED))
    draw_regrets(regrets, {GUIDED}, "regret, points of test accuracy", path)


if __name__ == "__main__":
    main()
