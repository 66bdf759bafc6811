"""Study of cost-aware proposals, by replay on recorded tables.

It compares the default search ("guided") with the same search that proposes by expected improvement per predicted
relative cost ("gain per cost", `BayesianSampler.cost_floor`). Both have the same budget in epochs. Regret is that of
the incumbent's denoised test accuracy in points, at equal cost: the recorded seconds (CPU seconds where a table has
them), in units of the default recipe. Both run with the same seeds, interleaved; differences are paired by table and
seed.

    nice -n 10 python studies/cost_aware.py [--seeds 30]     # about 6 minutes of one core

Results: `studies/results/cost_aware.json` and `studies/results/cost_aware.md`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from machine import machine

from nbt.tuning.baseline_recipes import default_recipe
from nbt.tuning.benchmark.ground_truth import estimate_ground_truth
from nbt.tuning.benchmark.methods import get_method, leave_dataset_out
from nbt.tuning.benchmark.metrics import bootstrap_mean_estimate, incumbent_path, paired_test
from nbt.tuning.benchmark.runner import replay_search
from nbt.tuning.benchmark.simulated_engine import ReplayedTrial
from nbt.tuning.benchmark.tabular import TabularBenchmark
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable
from nbt.tuning.space.space import Space

HERE = Path(__file__).parent
TABLES = ("cub50-mobilenet", "cub50-squeezenet", "dtd10", "sketch7")
METHODS = ("guided", "gain per cost")
BUDGET = 30
COSTS = (3, 5, 10, 15)


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30, help="Searches of each method on each table.")
    options = parser.parse_args()
    tables = [RecordedTable.load(HERE / "recorded" / f"{name}.parquet") for name in TABLES]
    space, started = Space.load("non_binary"), time.process_time()
    benchmarks = [TabularBenchmark(table, space) for table in tables]
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        for table, benchmark in zip(tables, benchmarks, strict=True):
            experience = leave_dataset_out(tables, table)
            for name in METHODS:
                trials = replay_search(benchmark, get_method(name), experience=experience, seed=seed, budget=BUDGET)
                row = {"table": table.header.name, "seed": seed, "method": name}
                rows.append(row | measure(trials, benchmark))
                print(json.dumps(rows[-1]), flush=True)
    report = {
        "machine": machine(),
        "cpu_minutes": round((time.process_time() - started) / 60, 1),
        "seeds": options.seeds,
        "rows": rows,
    }
    out = HERE / "results" / "cost_aware"
    out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(format_report(report), encoding="utf-8")


def measure(trials: Sequence[ReplayedTrial], benchmark: TabularBenchmark) -> dict[str, Any]:
    """Returns the regret in points after each of `COSTS`, the mean over the costs, and the cost of the search."""
    truth, length = estimate_ground_truth(benchmark), benchmark.length
    default = benchmark.settings[benchmark.index[default_recipe(length)]]
    # A run that diverges ends early.
    unit = median(length * _seconds(run, length) / len(run.curve) for run in default.runs)
    ends = np.cumsum([_seconds(benchmark.settings[t.setting].runs[t.run], t.epochs) / unit for t in trials])
    path = incumbent_path(trials, benchmark, trials[-1].cumulative_epochs)
    chance = 1 / int(benchmark.header.facts["classes"])
    regrets = []
    for cost in COSTS:
        n = int(np.searchsorted(ends, cost, side="right"))
        incumbent = path[trials[n - 1].cumulative_epochs - 1] if n else -1
        regrets.append(100 * (truth.best - (chance if incumbent < 0 else float(truth.smoothed[incumbent]))))
    stopped = [trial for trial in trials if trial.stopped is not None]
    return {
        **{f"regret {cost}": round(regret, 3) for cost, regret in zip(COSTS, regrets, strict=True)},
        "regret": round(fmean(regrets), 3),
        "cost": round(float(ends[-1]), 2),
        "trials": len(trials),
        "stopped": len(stopped),
    }


def _seconds(run: RecordedRun, epochs: int) -> float:
    return sum(e.seconds if e.cpu_seconds is None else e.cpu_seconds for e in run.curve[:epochs])


def format_report(report: dict[str, Any]) -> str:
    """Returns the report in Markdown."""
    rows = report["rows"]
    columns = (*(f"regret {cost}" for cost in COSTS), "regret")

    def values(method: str, column: str, table: str | None = None) -> list[float]:
        return [r[column] for r in rows if r["method"] == method and table in (None, r["table"])]

    lines = [
        "# Cost-aware proposals",
        "",
        f"Replay on {len(TABLES)} recorded tables, {report['seeds']} seeds, budget of {BUDGET} full trials in epochs; "
        f"{report['cpu_minutes']} CPU minutes on {report['machine']}. Regret in points of denoised test accuracy "
        "after a cost of so many default recipes (recorded seconds); lower is better. See `studies/cost_aware.py`.",
        "",
        "| method | "
        + " | ".join(f"after {cost}" for cost in COSTS)
        + " | mean | cost of the search | trials | stopped |",
        "|---|" + "---|" * (len(COSTS) + 4),
        *(
            f"| {name} | "
            + " | ".join(f"{fmean(values(name, column)):.2f}" for column in columns)
            + f" | {fmean(values(name, 'cost')):.1f} | {fmean(values(name, 'trials')):.0f} "
            f"| {fmean(values(name, 'stopped')):.0f} |"
            for name in METHODS
        ),
        "",
        "Difference to guided (negative: better), mean over tables and seeds with 95 % interval, and p (Wilcoxon):",
        "",
        "| method | table | mean regret | 95 % interval | p |",
        "|---|---|---|---|---|",
    ]
    for name in METHODS[1:]:
        for table in (*dict.fromkeys(row["table"] for row in rows), None):
            new, old = values(name, "regret", table), values(METHODS[0], "regret", table)
            estimate = bootstrap_mean_estimate([a - b for a, b in zip(new, old, strict=True)])
            lines.append(
                f"| {name} | {table or 'all'} | {estimate.value:+.2f} | {estimate.low:+.2f} to {estimate.high:+.2f} "
                f"| {paired_test(new, old):.3f} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
