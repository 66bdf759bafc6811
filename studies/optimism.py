"""Study: is the validation result of a search the test result, and do test intervals cover the true value?

Every search uses a random half of a data set's images for training and validation and a tenth for the test. The other
40 percent are a pool that no search reads: the accuracy of the recommended model on it stands for its true accuracy.
The pool is finite, so that a correct 95 % interval of n test images covers the accuracy on m pool images with a
probability of 2 Phi(1.96 / sqrt(1 + n / m)) - 1 only, 92 % here; the report states both. Official parts are joined and
drawn again.

- Optimism: validation mean of the final runs minus test accuracy of the recommended model. Its mean is over data sets,
  each of which counts once, with Student's interval over the means of the data sets.
- Coverage: share of the searches whose test interval contains the accuracy on the pool.
- Gain: test accuracy of the recommendation minus that of the default recipe, trained at the end of the same search.
  A tenth of the images are few, so that the gain is also stated on the pool, with the default recipe trained again.
- Duration: the whole relative to the trials, and finals with last training relative to the trials.

    python studies/optimism.py run --shared ../shared      # resumable, breadth first: seed 0 of all data sets first
    python studies/optimism.py report

`run` appends a line per search to `studies/results/optimism.jsonl`; `report` writes `studies/results/optimism.md`.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from command_line import judging_datasets, run_and_report_parser
from machine import machine
from nbt_command import run_nbt
from scipy.stats import norm
from small_tasks import BACKBONE, IMAGE_SIZE, WEIGHTS
from study_rows import read_rows, write_rows

import nbt
from nbt.tuning.intervals import Interval, t_interval, wilson_interval
from nbt.tuning.job_clock import PHASES, TRIALS, finals_share

HERE = Path(__file__).resolve().parent
ROWS, REPORT = HERE / "results" / "optimism.jsonl", HERE / "results" / "optimism.md"
TEST_SHARE, POOL_SHARE = 0.1, 0.4
SEEDS = (0, 1, 2)
Row = Mapping[str, Any]


def main() -> None:
    """Runs the searches or writes the report."""
    parser, run = run_and_report_parser(__doc__, ROWS)
    run.add_argument("--datasets", nargs="+", help="names; those that only judge, of tasks.yaml, by default")
    run.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="seeds of the draws and searches")
    run.add_argument("--budget", default="12")
    run.add_argument("--workers", default="auto")
    args = parser.parse_args()
    if args.command == "report":
        REPORT.write_text(summarise(read_rows(args.rows)), encoding="utf-8")
        print(REPORT.read_text())
        return
    names = args.datasets or judging_datasets(args.shared)
    for seed in args.seeds:
        for name in names:
            rows = {(row["dataset"], row["seed"], row["budget"]): row for row in read_rows(args.rows)}
            key = (name, seed, args.budget)
            if key not in rows:
                rows[key] = search(name, seed, args)
                write_rows(args.rows, rows.values())
                seconds = sum(rows[key]["clock"].values())
                print(name, seed, f"optimism {100 * rows[key]['optimism']:+.1f}, {seconds:.0f} s", flush=True)
            if "baseline_pool" not in rows[key]:
                rows[key] |= train_baseline(name, seed, args)
                write_rows(args.rows, rows.values())


def draw_parts(source: Path, folder: Path, seed: int) -> None:
    """Copies the images of a data set to `folder`: search/train, search/test and pool, drawn by class."""
    parts = [source / "train", source / "test"] if (source / "train").is_dir() else [source]
    rng = random.Random(seed)
    for name in sorted({entry.name for part in parts for entry in part.iterdir() if entry.is_dir()}):
        images = [path for part in parts if (part / name).is_dir() for path in sorted((part / name).iterdir())]
        rng.shuffle(images)
        n_pool, n_test = round(POOL_SHARE * len(images)), max(1, round(TEST_SHARE * len(images)))
        for index, image in enumerate(images):
            part = "pool" if index < n_pool else "search/test" if index < n_pool + n_test else "search/train"
            target = folder / part / name / f"{index:05d}{image.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, target)


def search(name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Runs one search in a folder of its own, and returns its line."""
    with tempfile.TemporaryDirectory(prefix=f"optimism-{name}-") as path:
        folder = Path(path)
        draw_parts(args.shared.resolve() / "data" / name, folder, seed)
        options = {"budget": args.budget, "workers": args.workers, "study": "optimism", "out": folder / "reports"}
        result = run_nbt("search", folder, {**task_options(folder, seed, args), **options})
        pool = nbt.evaluate(folder / "reports" / "optimism" / "model", folder / "pool", part="all", progress=False)
    assert pool.value is not None and result["optimism"] is not None
    return {
        "dataset": name,
        "seed": seed,
        "budget": args.budget,
        "optimism": result["optimism"]["value"],
        "validation": result["validation"],
        "test": {key: result["test"]["recommended"][key] for key in ("value", "low", "high", "n")},
        "baseline": result["test"]["baseline"]["value"],
        "pool": {"value": pool.value.mean, "n": pool.value.n},
        "clock": {phase: round(result["clock"][phase], 1) for phase in PHASES},
        "estimate": result["clock"].get("estimate"),
        "trials": result["trials"],
        "recommended": result["recommended"],
        "failed_checks": [check["code"] for check in result["checks"] if check["state"] == "failed"],
        "load": round(os.getloadavg()[2], 1),
        "machine": machine(),
    }


def train_baseline(name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Trains the default recipe on the images of one search, and returns its accuracy on the pool."""
    with tempfile.TemporaryDirectory(prefix=f"optimism-{name}-") as path:
        folder = Path(path)
        draw_parts(args.shared.resolve() / "data" / name, folder, seed)
        (folder / "default.yaml").write_text("{}\n")
        options = {"settings": folder / "default.yaml", "export": folder / "model"}
        run_nbt("train", folder, {**task_options(folder, seed, args), **options})
        pool = nbt.evaluate(folder / "model", folder / "pool", part="all", progress=False)
    assert pool.value is not None
    return {"baseline_pool": pool.value.mean}


def task_options(folder: Path, seed: int, args: argparse.Namespace) -> dict[str, object]:
    """Returns the options of the task of the drawn images of `folder`."""
    return {
        "dataset": folder / "search",
        "backbone": BACKBONE,
        "weights": args.shared.resolve() / WEIGHTS,
        "image-size": IMAGE_SIZE,
        "seed": seed,
    }


def covers(row: Row) -> bool:
    """Returns whether the test interval contains the accuracy on the pool."""
    return bool(row["test"]["low"] <= row["pool"]["value"] <= row["test"]["high"])


def expected_coverage(row: Row) -> float:
    """Returns the probability that a correct 95 % interval covers the accuracy on the finite pool."""
    return float(2.0 * norm.cdf(1.96 / math.sqrt(1.0 + row["test"]["n"] / row["pool"]["n"])) - 1.0)


def whole_over_trials(row: Row) -> float:
    """Returns the seconds of the whole search relative to those of its trials."""
    return float(sum(row["clock"].values()) / row["clock"][TRIALS])


def over_datasets(rows: Sequence[Row], value: str) -> Interval:
    """Returns the mean over data sets of the means of a value over seeds, with Student's interval."""
    names = sorted({row["dataset"] for row in rows})
    return t_interval([statistics.fmean(row[value] for row in rows if row["dataset"] == name) for name in names])


def summarise(rows: Sequence[Row]) -> str:
    """Returns the report: the goals, and a line per search."""
    rows = [
        {
            **row,
            "pool_optimism": row["validation"]["mean"] - row["pool"]["value"],
            "gain": row["test"]["value"] - row["baseline"],
            "removed": share_removed(row["test"]["value"], row["baseline"], row["test"]["n"]),
            **gain_on_pool(row),
        }
        for row in sorted(rows, key=lambda row: (row["dataset"], row["seed"]))
    ]
    covered = wilson_interval(statistics.fmean(map(covers, rows)), len(rows))
    shares = [finals_share(row["clock"]) for row in rows]
    ratios = list(map(whole_over_trials, rows))
    names, budgets = ({str(row[key]) for row in rows} for key in ("dataset", "budget"))
    lines = [
        "# Optimism and coverage",
        "",
        f"{len(rows)} searches on {len(names)} data sets, budget {', '.join(sorted(budgets))}, "
        f"{BACKBONE}, {IMAGE_SIZE} px; {rows[0]['machine']}. Described in `studies/optimism.py`.",
        "",
        f"- Optimism (validation minus test): {points(over_datasets(rows, 'optimism'))} points.",
        f"- Validation minus pool, a larger sample: {points(over_datasets(rows, 'pool_optimism'))} points.",
        f"- Recommended minus baseline, test: {points(over_datasets(rows, 'gain'))} points; it removes "
        f"{points(over_datasets(rows, 'removed'))} % of the baseline's errors.",
        pool_line(rows),
        f"- Test intervals that contain the accuracy on the pool: {100 * covered.mean:.0f} % "
        f"[{100 * (covered.low or 0.0):.0f}, {100 * (covered.high or 0.0):.0f}]; a correct 95 % interval would contain "
        f"{100 * statistics.fmean(map(expected_coverage, rows)):.0f} %.",
        f"- Whole relative to the trials: median {statistics.median(ratios):.2f} (goal 1.5).",
        f"- Finals and last training relative to the trials: median {statistics.median(shares):.2f} (goal 0.5).",
        f"- Load of the machine: {min(row['load'] for row in rows):.0f} to {max(row['load'] for row in rows):.0f} "
        "processes; the ratios of durations depend on it.",
        "",
        "| data set | seed | validation | test [95 %] | baseline, test | pool | baseline, pool | optimism | covered "
        "| whole / trials | finals / trials |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row, share, ratio in zip(rows, shares, ratios, strict=True):
        test = row["test"]
        lines.append(
            f"| {row['dataset']} | {row['seed']} | {row['validation']['mean']:.3f} "
            f"| {test['value']:.3f} [{test['low']:.3f}, {test['high']:.3f}] | {row['baseline']:.3f} "
            f"| {row['pool']['value']:.3f} | {row.get('baseline_pool', math.nan):.3f} "
            f"| {100 * row['optimism']:+.1f} | {'yes' if covers(row) else 'no'} | {ratio:.2f} | {share:.2f} |"
        )
    return "\n".join([*lines, ""])


def share_removed(recommended: float, baseline: float, n: int) -> float:
    """Returns the share of the baseline's errors that the recommendation removes; of none, as if there was one."""
    return (recommended - baseline) / max(1.0 - baseline, 1.0 / n)


def gain_on_pool(row: Row) -> dict[str, float]:
    """Returns `pool_gain` and `pool_removed` of a search whose baseline was evaluated on the pool."""
    if "baseline_pool" not in row:
        return {}
    recommended, baseline = row["pool"]["value"], row["baseline_pool"]
    removed = share_removed(recommended, baseline, row["pool"]["n"])
    return {"pool_gain": recommended - baseline, "pool_removed": removed}


def pool_line(rows: Sequence[Row]) -> str:
    """Returns the line of the gain on the pool."""
    rows = [row for row in rows if "pool_gain" in row]
    if not rows:
        return "- Recommended minus baseline, pool: not measured."
    return (
        f"- Recommended minus baseline, pool: {points(over_datasets(rows, 'pool_gain'))} points; it removes "
        f"{points(over_datasets(rows, 'pool_removed'))} % of the baseline's errors ({len(rows)} searches)."
    )


def points(interval: Interval) -> str:
    """Returns a mean with its interval in points."""
    if interval.low is None or interval.high is None:
        return f"{100 * interval.mean:+.1f}"
    return f"{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


if __name__ == "__main__":
    main()
