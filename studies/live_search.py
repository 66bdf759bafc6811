"""Study: does the default search find better recipes than a plain search on real images?

Runs complete searches (`nbt search`: proposals, pruning, finals, retraining, one test evaluation) on real images, with
and without priors and pruner, at the same budget of epochs and with several seeds. The arm "guided" is the default; the
arm "plain" is `--no-heuristics --pruner none`. A search uses only the recorded tables of other datasets.

    python studies/live_search.py run --task cub50 --shared ../shared      # resumable; stores one line per search
    python studies/live_search.py run --task dtd10 --shared ../shared --arm guided
    python studies/live_search.py report

Results: `studies/results/live_search.{jsonl,md}`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import machine
from study_rows import append_row, read_rows

from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.intervals import t_interval
from nbt.tuning.storage.records import StudyRecord

HERE = Path(__file__).parent
ROWS, REPORT = HERE / "results" / "live_search.jsonl", HERE / "results" / "live_search.md"
SMALL = {"backbone": "mobilenet_v2(width_mult=0.35)", "weights": "weights/mobilenet_v2_035-imagenet.pth"}
# The first task is small enough for three seeds of both arms; for the other two, results of binary recipes are known.
TASKS: dict[str, dict[str, Any]] = {
    "cub50": {**SMALL, "dataset": "cub", "data_dir": "data", "shots": 15, "image_size": 64, "budget": 12},
    "dtd10": {**SMALL, "dataset": "data/dtd10", "image_size": 96, "budget": 20},
    "sketch7": {**SMALL, "dataset": "data/sketch7", "image_size": 96, "budget": 20},
}
PATHS = ("weights", "data_dir")
# Best of linear probe and full fine-tuning at two rates, one seed, same image size (shared/data/README.md).
BINARY = {"dtd10": 0.621, "sketch7": 0.777}
ARMS: dict[str, dict[str, Any]] = {"guided": {}, "plain": {"heuristics": False, "pruner": "none"}}
FINAL_SEEDS = 3


def main() -> None:
    """Runs the searches or writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run searches that are not stored yet")
    run.add_argument("--task", choices=sorted(TASKS), required=True, help="task to search")
    run.add_argument("--shared", type=Path, required=True, help="folder with data/ and weights/")
    run.add_argument("--arm", choices=sorted(ARMS), nargs="*", default=list(ARMS), help="arms to run")
    run.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="seeds of the searches")
    commands.add_parser("report", help="write the report of the stored searches")
    args = parser.parse_args()
    if args.command == "report":
        REPORT.write_text(report(read_rows(ROWS)), encoding="utf-8")
        return
    for seed in args.seeds:
        for arm in args.arm:
            search(args.task, arm, seed, args.shared.resolve())


def search(task: str, arm: str, seed: int, shared: Path) -> None:
    """Runs one search and stores its line, unless the line is already stored."""
    if any((row["task"], row["arm"], row["seed"]) == (task, arm, seed) for row in read_rows(ROWS)):
        return
    from nbt import api

    options = dict(TASKS[task])
    dataset = options.pop("dataset")
    options |= {name: shared / options[name] for name in PATHS if name in options}
    dataset = str(shared / dataset) if "/" in dataset else dataset
    with tempfile.TemporaryDirectory() as folder:
        working_folder = Path.cwd()
        experience = _copy_experience(Path(folder) / "experience", Path(dataset).name)
        os.chdir(folder)  # the search writes its study, checkpoints, MLflow runs and report here
        try:
            result = api.search(
                dataset, **options, **ARMS[arm], seed=seed, experience=experience, final_seeds=FINAL_SEEDS
            )
        finally:
            os.chdir(working_folder)
    append_row(ROWS, {"task": task, "arm": arm, "seed": seed, **_row(result.record)})


def _copy_experience(folder: Path, dataset: str) -> Path:
    """Copies the recorded tables of other datasets into a new folder, and returns the folder."""
    folder.mkdir()
    for path in sorted((HERE / "recorded").glob("*.parquet")):
        if RecordedTable.load(path).header.dataset != dataset:
            shutil.copy(path, folder)
    return folder


def _row(record: StudyRecord) -> dict[str, Any]:
    """Returns the results of a search to be stored."""
    final = record.final(record.recommended or "")
    assert final is not None
    counts = record.counts()
    return {
        "recommended": record.recommended,
        "settings": final.settings.to_dict(),
        "validation": final.validation.mean,
        "test": {evaluation.name: evaluation.accuracy.mean for evaluation in record.test},
        "test_images": record.test[0].n,
        "epochs": record.epochs_spent,
        "seconds": round(record.seconds_spent),
        "complete": counts["complete"],
        "pruned": counts["pruned"],
        "best_validation": max(trial.val_accuracy or 0.0 for trial in record.trials if trial.state == "complete"),
        "origin": {trial.number: trial.origin for trial in record.trials}.get(final.trial or -1, ""),
        "machine": machine(),
    }


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the report: a table of all searches and a comparison of the arms."""
    lines = [
        "# Live searches",
        "",
        f"Complete searches on real images; {rows[0]['machine']}. The recommendation is chosen on validation images, "
        "trained on train + validation, and tested once; the default recipe is trained and tested the same way. "
        "`studies/live_search.py` describes the study.",
        "",
        "| task | arm | seed | recommended | validation of finals | test | default recipe, test | trials (pruned) "
        "| epochs | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["task"], row["seed"], row["arm"])):
        tests = row["test"]
        lines.append(
            f"| {row['task']} | {row['arm']} | {row['seed']} | {row['recommended']} ({row['origin'] or 'default'}) "
            f"| {row['validation']:.3f} | {tests['recommended']:.3f} | {tests['baseline']:.3f} "
            f"| {row['complete'] + row['pruned']} ({row['pruned']}) | {row['epochs']} | {row['seconds']} |"
        )
    lines += [
        "",
        "| task | arm | searches | recommendation, test | gain over the default recipe | best binary recipe |",
    ]
    lines += ["|---|---|---|---|---|---|"]
    for task in TASKS:
        for arm in ARMS:
            arm_tests = [row["test"] for row in rows if (row["task"], row["arm"]) == (task, arm)]
            if arm_tests:
                test = _interval([accuracies["recommended"] for accuracies in arm_tests])
                gain = _interval([accuracies["recommended"] - accuracies["baseline"] for accuracies in arm_tests])
                lines.append(f"| {task} | {arm} | {len(arm_tests)} | {test} | {gain} | {BINARY.get(task, '')} |")
    return "\n".join([*lines, ""])


def _interval(values: Sequence[float]) -> str:
    mean = t_interval(values)
    ends = "" if mean.low is None else f" [{100 * mean.low:.1f}, {100 * (mean.high or 0.0):.1f}]"
    return f"{100 * mean.mean:.1f}{ends}"


if __name__ == "__main__":
    main()
