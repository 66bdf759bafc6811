"""Study: does a search leave out weights that do not help, and does it keep those that do?

Whole searches on judging data sets with the ImageNet weights of `mobilenet_v2(width_mult=0.35)`, spoilt in three ways:

- *permuted*: the values of every tensor in a random order, so that layers keep the distribution of their values;
- *shuffled*: the filters of every tensor in a random order, so that filters stay and no longer fit each other;
- *noise*: normally distributed values with the mean and standard deviation of every tensor.

Statistics of BatchNorm, which have to be positive, are permuted in all three. Rule, for every kind of weights: *left
out* if the recommended transfer depth is at most .25 in every search, and trials that transfer more than that take at
most a tenth of the training time beside the default recipe, which always runs. The searches of `optimism.py` are the
other side: with the intact weights, no recommendation may have a transfer depth of at most .25.

A depth is not the whole answer: spoilt weights may be a better initialisation than new random ones. The report
therefore has the test accuracy of the recommendation and that of the default recipe, which keeps all spoilt weights,
and the best validation accuracy of trials that transfer at most .25 and of the others.

    python studies/negative_transfer.py run --shared ../shared      # resumable; about an hour on two idle cores
    python studies/negative_transfer.py report

Rows: `studies/results/negative_transfer.jsonl`; the report writes `negative_transfer.md`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from command_line import run_and_report_parser
from machine import machine
from nbt_command import run_nbt
from optimism import ROWS as INTACT_ROWS
from small_tasks import BACKBONE, IMAGE_SIZE, STUDY, WEIGHTS, search_options
from study_rows import append_row, read_rows

RESULTS = Path(__file__).resolve().parent / "results"
ROWS, REPORT = RESULTS / "negative_transfer.jsonl", RESULTS / "negative_transfer.md"
KINDS = ("permuted", "shuffled", "noise")
DATASETS, SEEDS = ("scene15", "food15", "gtsrb16"), (0, 1)
BUDGET, LOW_DEPTH, MAX_SHARE = "12", 0.25, 0.1
DEFAULT = "baseline: default recipe"
Row = dict[str, Any]


def main() -> None:
    """Runs the searches or writes the report."""
    parser, run = run_and_report_parser(__doc__, ROWS)
    run.add_argument("--datasets", nargs="+", default=list(DATASETS))
    run.add_argument("--budget", default=BUDGET)
    args = parser.parse_args()
    if args.command == "report":
        args.rows.with_suffix(".md").write_text(summarise(read_rows(args.rows), read_rows(INTACT_ROWS)), "utf-8")
        return
    done = {(row["kind"], row["dataset"], row["seed"]) for row in read_rows(args.rows)}
    for seed in SEEDS:
        for dataset in args.datasets:
            for kind in KINDS:
                if (kind, dataset, seed) not in done:
                    row = search(kind, dataset, seed, args)
                    append_row(args.rows, row)
                    print(kind, dataset, seed, f"transfer depth {row['transfer_depth']:.2f}", flush=True)


def spoil(state: dict[str, torch.Tensor], kind: str, seed: int) -> dict[str, torch.Tensor]:
    """Returns a state with spoilt values; the docstring of the module describes the kinds."""
    generator = torch.Generator().manual_seed(seed)

    def spoilt(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or tensor.dim() == 0:
            return tensor
        if kind == "permuted" or "running_" in name:
            return tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].reshape(tensor.shape)
        if kind == "shuffled":
            return tensor[torch.randperm(len(tensor), generator=generator)]
        spread = tensor.std(correction=0)
        return tensor.mean() + spread * torch.randn(tensor.shape, generator=generator)

    return {name: spoilt(name, tensor) for name, tensor in state.items()}


def search(kind: str, dataset: str, seed: int, args: argparse.Namespace) -> Row:
    """Runs one search in a folder of its own, and returns its row."""
    shared = args.shared.resolve()
    with tempfile.TemporaryDirectory(prefix=f"negative-{kind}-") as path:
        folder = Path(path)
        state = torch.load(shared / WEIGHTS, weights_only=True)
        torch.save(spoil(state, kind, seed), folder / "weights.pth")
        options = {
            **search_options(shared, dataset, seed, args.budget, folder),
            "weights": folder / "weights.pth",
        }
        result = run_nbt("search", folder, options)
        trials = pd.read_csv(folder / "reports" / STUDY / "trials.csv")
    return {
        "kind": kind,
        "dataset": dataset,
        "seed": seed,
        "transfer_depth": result["recommended"]["transfer_depth"],
        "advised": result["transfer"]["advised"],
        "test": result["test"]["recommended"]["value"],
        "default": result["test"]["baseline"]["value"],
        **trial_facts(trials),
        "seconds": round(sum(value for key, value in result["clock"].items() if key != "estimate")),
        "machine": machine(),
    }


def trial_facts(trials: pd.DataFrame) -> Row:
    """Returns the share of the time that transfers took beside the default recipe, and the best value of each side."""
    transfers = trials["transfer_depth"] > LOW_DEPTH
    others = trials["origin"] != DEFAULT
    complete = trials["state"] == "complete"
    best = trials[complete].groupby(transfers[complete])["val_accuracy"].max()
    return {
        "share": float(trials.loc[transfers & others, "seconds"].sum() / trials["seconds"].sum()),
        "best_transfer": float(best.get(True, float("nan"))),
        "best_scratch": float(best.get(False, float("nan"))),
    }


def verdict(rows: Sequence[Row]) -> str:
    """Returns whether weights of one kind are left out."""
    low = all(row["transfer_depth"] <= LOW_DEPTH for row in rows)
    cheap = all(row["share"] <= MAX_SHARE for row in rows)
    return "left out" if low and cheap else "not left out"


def summarise(rows: Sequence[Row], intact: Sequence[Row]) -> str:
    """Returns the report.

    Args:
        rows: Searches with spoilt weights.
        intact: Searches with the intact weights.
    """
    depths = [row["recommended"]["transfer_depth"] for row in intact]
    lines = [
        "# Weights that do not help",
        "",
        f"{len(rows)} searches, budget {BUDGET}, {BACKBONE}, {IMAGE_SIZE} px; {rows[0]['machine']}. Described in "
        "`studies/negative_transfer.py`.",
        "",
    ]
    for kind in KINDS:
        found = [row for row in rows if row["kind"] == kind]
        if found:
            low = sum(row["transfer_depth"] <= LOW_DEPTH for row in found)
            gain = statistics.fmean(row["test"] - row["default"] for row in found)
            lines.append(
                f"- {kind}: {verdict(found)}. Recommended depth at most {LOW_DEPTH:g} in {low} of {len(found)} "
                f"searches; transfers took {100 * statistics.fmean(row['share'] for row in found):.0f} % of the time; "
                f"the recommendation is {100 * gain:+.1f} points from the default recipe on the spoilt weights."
            )
    lines += [
        f"- intact ImageNet weights ({len(depths)} searches of `optimism.py`): recommended depth at most "
        f"{LOW_DEPTH:g} in {sum(depth <= LOW_DEPTH for depth in depths)}; the least is {min(depths):.2f}.",
        "",
        "| weights | data set | seed | recommended depth | transfers, share of the time | test | default recipe, test "
        "| best validation, depth at most .25 | best validation, others |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (KINDS.index(row["kind"]), row["dataset"], row["seed"])):
        values = [row[key] for key in ("test", "default", "best_scratch", "best_transfer")]
        lines.append(
            f"| {row['kind']} | {row['dataset']} | {row['seed']} | {row['transfer_depth']:.2f} | {row['share']:.2f} | "
            + " | ".join(f"{value:.3f}" for value in values)
            + " |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
