"""Study: are whole searches better than the default recipe and than what general tools search, at equal cost?

Complete searches (`nbt search`: trials, finals, last training, one test) on the ten judging data sets, with the budget
of 20 trials of the default recipe. Arms, each with the same seeds, splits and test images:

- *default*: `nbt search` as it comes, with the recorded tables of other data sets;
- *general*: what general tools search: one learning rate, weight decay, optimiser, batch size, label smoothing,
  augmentation, mixup and the number of epochs; Optuna's TPE, ASHA prunes;
- *binary*: pretrained or not, frozen or not, L2 or L2-SP, one learning rate, decay; TPE, ASHA.

The two rivals get nbt's finals, too, which general tools do not have, and the same last training. Results are those of
the recommended model on the test images, against that of the default recipe, which every search trains in the same way;
the difference between the arms is paired by data set and seed. Intervals are Student's over the means of data sets.

Rule: *confirmed* if the recommendation of *default* removes at least 30 % of the default recipe's test error in the
mean, with an interval above 15 %, is at least 5 points above *general* and at least 3 above *binary*; *confirmed in
part* if its differences from the default recipe and from *general* have intervals above 0; else *not confirmed*. There
is no verdict before the first seed of all data sets and arms. Reported, too: the data sets on which the recommendation
is clearly below the default recipe (interval of its test images wholly below -1.5 points), and the share of its rival's
cost after which *default* has a trial with a validation score as high as the best of *general*.

    python studies/live_search.py run --shared ../shared      # resumable; about five hours on two idle cores
    python studies/live_search.py report

Rows: `studies/results/live_search_judging.jsonl`; the report writes `live_search_judging.md`. The rows and the report
`live_search.{jsonl,md}` are of a former design, on three data sets that tune.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from command_line import judging_datasets, run_and_report_parser
from machine import machine
from nbt_command import REPOSITORY, run_nbt
from small_tasks import BACKBONE, IMAGE_SIZE, STUDY, search_options
from study_rows import append_row, read_rows

from nbt.tuning.intervals import Interval, t_interval
from nbt.tuning.storage.database import resolve_storage
from nbt.tuning.storage.records import StudyRecord
from nbt.tuning.storage.studies import read_study

ROWS = Path(__file__).resolve().parent / "results" / "live_search_judging.jsonl"
DEFAULT, GENERAL, BINARY = "default", "general", "binary"
ARMS = (DEFAULT, GENERAL, BINARY)
SEEDS, BUDGET, EPOCHS = (0, 1), "20", 12
SEARCHED = ("head_lr", "decay_strength", "optimizer", "batch_size", "label_smoothing", "augmentation", "mixup")
MIN_ERRORS_REMOVED, MIN_LOW, OVER = 0.3, 0.15, {GENERAL: 0.05, BINARY: 0.03}
HARM = -0.015
Row = dict[str, Any]


def main() -> None:
    """Runs the searches or writes the report."""
    parser, run = run_and_report_parser(__doc__, ROWS)
    run.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    run.add_argument("--datasets", nargs="+", help="names; those that only judge, of tasks.yaml, by default")
    run.add_argument("--budget", default=BUDGET)
    args = parser.parse_args()
    if args.command == "report":
        args.rows.with_suffix(".md").write_text(summarise(read_rows(args.rows)), encoding="utf-8")
        return
    done = {(row["dataset"], row["seed"], row["arm"], row["budget"]) for row in read_rows(args.rows)}
    for seed in SEEDS:
        for dataset in args.datasets or judging_datasets(args.shared):
            for arm in args.arms:
                if (dataset, seed, arm, args.budget) not in done:
                    row = search(dataset, seed, arm, args)
                    append_row(args.rows, row)
                    print(dataset, seed, arm, f"test {row['test']:.3f}, {row['seconds']} s", flush=True)


def general_space() -> dict[str, Any]:
    """Returns the space of general tools: dimensions of the space `non_binary`, one learning rate, and the length."""
    space = yaml.safe_load((REPOSITORY / "search_spaces" / "non_binary.yaml").read_text(encoding="utf-8"))
    dimensions = {name: space["dimensions"][name] for name in SEARCHED}
    length = {"kind": "int", "low": EPOCHS // 2, "high": 2 * EPOCHS, "log": True, "neutral": EPOCHS}
    return {
        "name": GENERAL,
        "description": "What general tools search.",
        "dimensions": {**dimensions, "epochs": length},
        "same_as": {"body_lr": "head_lr"},
    }


def options_of(arm: str, folder: Path) -> dict[str, object]:
    """Returns the options of `nbt search` that distinguish an arm, for a search in a folder."""
    if arm == DEFAULT:
        return {}
    if arm == BINARY:
        return {"space": BINARY, "epochs": EPOCHS, "pruner": "asha"}
    (folder / "general.yaml").write_text(yaml.safe_dump(general_space(), sort_keys=False), encoding="utf-8")
    return {"space": folder / "general.yaml", "pruner": "asha"}


def search(dataset: str, seed: int, arm: str, args: argparse.Namespace) -> Row:
    """Runs one search in a folder of its own, and returns its row."""
    shared = args.shared.resolve()
    with tempfile.TemporaryDirectory(prefix=f"live-{dataset}-{arm}-") as path:
        folder = Path(path)
        options = {
            **search_options(shared, dataset, seed, args.budget, folder),
            **options_of(arm, folder),
        }
        result = run_nbt("search", folder, options, flags=() if arm == DEFAULT else ("no-heuristics",))
        record = read_study(resolve_storage(None, folder), STUDY)
    difference = result["test_difference"]
    return {
        "dataset": dataset,
        "seed": seed,
        "arm": arm,
        "budget": args.budget,
        "test": result["test"]["recommended"]["value"],
        "baseline": result["test"]["baseline"]["value"],
        "n_test": result["test"]["recommended"]["n"],
        "difference": None if difference is None else [difference[key] for key in ("value", "low", "high")],
        "validation": result["validation"]["mean"],
        "recommended": result["recommended"],
        "trials": result["trials"],
        "cost": result["cost"]["spent"],
        "path": best_by_cost(record),
        "seconds": round(sum(value for key, value in result["clock"].items() if key != "estimate")),
        "machine": machine(),
    }


def best_by_cost(record: StudyRecord) -> list[list[float]]:
    """Returns each full-length trial with a new best score: the cost of all trials up to it, in baseline trials; it."""
    path, spent, best = [], 0.0, -math.inf
    for trial in record.trials:
        spent += trial.cost / record.config.epochs
        score = None if trial.diverged or trial.state != "complete" else trial.score(record.config.metric)
        if score is not None and score > best:
            best = score
            path.append([round(spent, 3), round(score, 5)])
    return path


def dataset_means(rows: Sequence[Row], value: str, arm: str, other: str | None = None) -> dict[str, float]:
    """Returns the mean over seeds of a value of an arm, minus that of another arm, for each data set that has both."""
    known = {(row["dataset"], row["seed"], row["arm"]): row[value] for row in rows}
    found: dict[str, list[float]] = defaultdict(list)
    for (dataset, seed, name), number in known.items():
        if name == arm and (other is None or (dataset, seed, other) in known):
            found[dataset].append(number - (0.0 if other is None else known[dataset, seed, other]))
    return {dataset: statistics.fmean(values) for dataset, values in found.items()}


def with_gains(rows: Sequence[Row]) -> list[Row]:
    """Returns rows with the difference from the default recipe and the share of its errors that is removed."""
    return [
        {
            **row,
            "gain": row["test"] - row["baseline"],
            "removed": (row["test"] - row["baseline"]) / max(1.0 - row["baseline"], 1.0 / row["n_test"]),
        }
        for row in rows
    ]


def cost_shares(rows: Sequence[Row]) -> list[float]:
    """Returns the share of the cost of *general* after which *default* is as good in validation; inf if it never is."""
    known = {(row["dataset"], row["seed"], row["arm"]): row for row in rows}
    shares = []
    for (dataset, seed, arm), rival in known.items():
        own = known.get((dataset, seed, DEFAULT))
        if arm == GENERAL and own is not None and rival["path"]:
            mark = rival["path"][-1][1]
            reached = next((cost for cost, score in own["path"] if score >= mark), math.inf)
            shares.append(reached / rival["cost"])
    return shares


def verdict(rows: Sequence[Row]) -> str:
    """Returns the verdict of the rule; "" before the first seed of all data sets and arms."""
    names = {row["dataset"] for row in rows}
    first = {(row["dataset"], row["arm"]) for row in rows if row["seed"] == SEEDS[0]}
    if len(names) < 10 or any((name, arm) not in first for name in names for arm in ARMS):
        return ""
    removed, gain = (_interval(dataset_means(rows, value, DEFAULT)) for value in ("removed", "gain"))
    over = {rival: _interval(dataset_means(rows, "test", DEFAULT, rival)) for rival in OVER}
    is_large = removed.mean >= MIN_ERRORS_REMOVED and (removed.low or 0.0) > MIN_LOW
    if is_large and all(over[rival].mean >= least for rival, least in OVER.items()):
        return "confirmed"
    return "confirmed in part" if min(gain.low or 0.0, over[GENERAL].low or 0.0) > 0.0 else "not confirmed"


def summarise(rows: Sequence[Row]) -> str:
    """Returns the report of searches with the budget of the study."""
    rows = with_gains([row for row in rows if row["budget"] == BUDGET])
    lines = ["# Whole searches on data sets that judge", ""]
    if not rows:
        return "\n".join([*lines, "No search yet.", ""])
    harmed = [f"{row['dataset']} (seed {row['seed']})" for row in rows if row["arm"] == DEFAULT and _is_harmed(row)]
    shares = cost_shares(rows)
    lines += [
        f"{len(rows)} of {len(ARMS) * len(SEEDS) * 10} searches, budget {BUDGET}, {BACKBONE}, {IMAGE_SIZE} px; "
        f"{rows[0]['machine']}. Design and rule: `studies/live_search.py`. Verdict: {verdict(rows) or 'none yet'}.",
        "",
        "Points of test accuracy, 95 % intervals over the means of data sets:",
        "",
        *(f"- {text}: {_points(dataset_means(rows, *key))}" for text, key in _COMPARED.items()),
        f"- errors of the default recipe that *default* removes, %: {_points(dataset_means(rows, 'removed', DEFAULT))}",
        f"- *default* clearly below the default recipe: {', '.join(harmed) or 'on no data set'}",
    ]
    if shares:
        lines.append(
            f"- share of the cost of *general* after which *default* has as good a trial: median "
            f"{statistics.median(shares):.2f} of {len(shares)} pairs, never in {sum(map(math.isinf, shares))}"
        )
    lines += ["", "| data set | seed | " + " | ".join(f"{arm}, test (default recipe)" for arm in ARMS) + " |"]
    lines.append("|---|---|" + "---|" * len(ARMS))
    known = {(row["dataset"], row["seed"], row["arm"]): row for row in rows}
    for dataset, seed in sorted({(row["dataset"], row["seed"]) for row in rows}):
        cells = [known.get((dataset, seed, arm)) for arm in ARMS]
        texts = ["" if row is None else f"{row['test']:.3f} ({row['baseline']:.3f})" for row in cells]
        lines.append(f"| {dataset} | {seed} | " + " | ".join(texts) + " |")
    return "\n".join([*lines, ""])


_COMPARED: Mapping[str, tuple[str, ...]] = {
    "*default* minus the default recipe": ("gain", DEFAULT),
    "*general* minus the default recipe": ("gain", GENERAL),
    "*binary* minus the default recipe": ("gain", BINARY),
    "*default* minus *general*": ("test", DEFAULT, GENERAL),
    "*default* minus *binary*": ("test", DEFAULT, BINARY),
}


def _is_harmed(row: Row) -> bool:
    high = None if row["difference"] is None else row["difference"][2]
    return high is not None and high < HARM


def _interval(means: Mapping[str, float]) -> Interval:
    return t_interval(list(means.values()))


def _points(means: Mapping[str, float]) -> str:
    if not means:
        return "no data set yet"
    found = _interval(means)
    bounds = "" if found.low is None or found.high is None else f" [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{100 * found.mean:+.1f}{bounds} ({found.n} data sets)"


if __name__ == "__main__":
    main()
