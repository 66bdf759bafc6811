"""Study: is a search over non-binary transfer better than one over binary transfer, with the same budget?

The live confirmation of `binary.py`, whose settings are drawn at random: whole searches on two of
the judging data sets, the first and the last by name, which no figure has chosen. Two arms with the same budget,
seeds, splits and test images:

- *binary*: the space `binary`: pretrained or not, frozen or not, L2-SP or not, one learning rate;
- *non_binary*: the dimensions of the space `non_binary` that make these choices continuous: depth, frozen share, rates
  by layer, the mix of L2 and L2-SP and the units under it. All other settings are those of the default recipe.

Both spaces lack settings that vary in the recorded tables, so that both arms search without recorded tables, and ASHA
prunes: the arms are equal to each other, and not the default search.

Rule, on *non_binary* minus *binary*, the test accuracy of the recommendations, paired by data set and seed:
*confirmed* if the mean is at least 1 point and its 95 % interval over the pairs is above 0; *confirmed in part* if the
mean is at least 1 point; else *not confirmed*. Fewer than three seeds on both data sets give no verdict.

    python studies/binary_live.py run --shared ../shared      # resumable; about an hour on two idle cores
    python studies/binary_live.py report

Rows: `studies/results/binary_live.jsonl`; the report writes `binary_live.md`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from command_line import judging_datasets, run_and_report_parser
from machine import machine
from nbt_command import REPOSITORY, run_nbt
from small_tasks import BACKBONE, IMAGE_SIZE, search_options
from study_rows import append_row, read_rows

from nbt.tuning.intervals import t_interval

ROWS = Path(__file__).resolve().parent / "results" / "binary_live.jsonl"
ARMS = BINARY, NON_BINARY = "binary", "non_binary"
DIMENSIONS = (
    *("transfer_depth", "frozen_depth", "head_lr", "body_lr", "layer_lr_shape"),
    *("decay_strength", "sp_mix", "sp_depth"),
)
SEEDS, BUDGET, EPOCHS, MIN_GAIN = (0, 1, 2), "12", 12, 0.01
Row = dict[str, Any]


def main() -> None:
    """Runs the searches or writes the report."""
    parser, run = run_and_report_parser(__doc__, ROWS)
    run.add_argument("--budget", default=BUDGET)
    args = parser.parse_args()
    if args.command == "report":
        args.rows.with_suffix(".md").write_text(summarise(read_rows(args.rows)), encoding="utf-8")
        return
    done = {(row["dataset"], row["seed"], row["arm"], row["budget"]) for row in read_rows(args.rows)}
    for seed in SEEDS:
        for dataset in judging(args.shared):
            for arm in ARMS:
                if (dataset, seed, arm, args.budget) not in done:
                    row = search(dataset, seed, arm, args)
                    append_row(args.rows, row)
                    print(dataset, seed, arm, f"test {row['test']:.3f}, {row['seconds']} s", flush=True)


def judging(shared: Path) -> list[str]:
    """Returns the first and the last judging data set by name."""
    names = sorted(judging_datasets(shared))
    return [names[0], names[-1]]


def transfer_space() -> dict[str, Any]:
    """Returns the part of the space `non_binary` that concerns transfer, with one optimiser and plain images."""
    space = yaml.safe_load((REPOSITORY / "search_spaces" / "non_binary.yaml").read_text(encoding="utf-8"))
    dimensions = {name: space["dimensions"][name] for name in DIMENSIONS}
    return {**space, "name": "transfer", "dimensions": dimensions}


def search(dataset: str, seed: int, arm: str, args: argparse.Namespace) -> Row:
    """Runs one search in a folder of its own, and returns its row."""
    shared = args.shared.resolve()
    with tempfile.TemporaryDirectory(prefix=f"binary-live-{dataset}-") as path:
        folder = Path(path)
        (folder / "transfer.yaml").write_text(yaml.safe_dump(transfer_space(), sort_keys=False), encoding="utf-8")
        options = {
            **search_options(shared, dataset, seed, args.budget, folder),
            "space": BINARY if arm == BINARY else folder / "transfer.yaml",
            "epochs": EPOCHS,
        }
        result = run_nbt("search", folder, options)
    return {
        "dataset": dataset,
        "seed": seed,
        "arm": arm,
        "budget": args.budget,
        "test": result["test"]["recommended"]["value"],
        "default": result["test"]["baseline"]["value"],
        "validation": result["validation"]["mean"],
        "trials": result["trials"],
        "recommended": result["recommended"],
        "seconds": round(sum(value for key, value in result["clock"].items() if key != "estimate")),
        "machine": machine(),
    }


def gains(rows: Sequence[Row]) -> dict[tuple[str, int], float]:
    """Returns the test accuracy of *non_binary* minus that of *binary* for each data set and seed that has both."""
    values = {(row["dataset"], row["seed"], row["arm"]): row["test"] for row in rows}
    pairs = sorted({(dataset, seed) for dataset, seed, _ in values})
    return {
        (dataset, seed): values[dataset, seed, NON_BINARY] - values[dataset, seed, BINARY]
        for dataset, seed in pairs
        if all((dataset, seed, arm) in values for arm in ARMS)
    }


def verdict(rows: Sequence[Row]) -> str:
    """Returns the verdict by the rule of the study; "" for too few searches."""
    found = gains(rows)
    datasets = {dataset for dataset, _ in found}
    if len(datasets) < 2 or any((dataset, seed) not in found for dataset in datasets for seed in SEEDS):
        return ""
    interval = t_interval(list(found.values()))
    if interval.mean < MIN_GAIN:
        return "not confirmed"
    return "confirmed" if interval.low is not None and interval.low > 0.0 else "confirmed in part"


def summarise(rows: Sequence[Row]) -> str:
    """Returns the report of searches with the budget of the study."""
    rows = [row for row in rows if row["budget"] == BUDGET]
    found = gains(rows)
    if not found:
        return "# Searches over binary and non-binary transfer\n\nNo data set and seed with both arms yet.\n"
    mean = t_interval(list(found.values()))
    bounds = "" if mean.low is None or mean.high is None else f" [{100 * mean.low:+.1f}, {100 * mean.high:+.1f}]"
    seconds = {arm: statistics.median(row["seconds"] for row in rows if row["arm"] == arm) for arm in ARMS}
    lines = [
        "# Searches over binary and non-binary transfer",
        "",
        f"{len(rows)} searches, budget {BUDGET}, {BACKBONE}, {IMAGE_SIZE} px, {EPOCHS} epochs; {rows[0]['machine']}. "
        f"Design and rule: `studies/binary_live.py`. Verdict: {verdict(rows) or 'none yet'}.",
        "",
        f"Non-binary minus binary: {100 * mean.mean:+.1f} points{bounds} of test accuracy over {mean.n} pairs; "
        f"median of the whole search {seconds[BINARY]:.0f} s (binary) and {seconds[NON_BINARY]:.0f} s.",
        "",
        "| data set | seed | binary, test | non-binary, test | default recipe, test |",
        "|---|---|---|---|---|",
    ]
    tests = {(row["dataset"], row["seed"], row["arm"]): row for row in rows}
    for dataset, seed in found:
        binary, other = (tests[dataset, seed, arm] for arm in ARMS)
        lines.append(f"| {dataset} | {seed} | {binary['test']:.3f} | {other['test']:.3f} | {other['default']:.3f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
