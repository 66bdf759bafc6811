"""Recorded tables of the race of `tuned_default.py`.

Every table has the recipes that were trained on one tuning data set, with their learning curves, and the profile of the
task. Runs whose curve was not kept, and recipes outside the default space, are left out.

    python studies/race_tables.py --shared ../shared      # writes studies/recorded/race/NAME-64.parquet
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from small_tasks import CURVE, EPOCHS, IMAGE_SIZE, Tasks, recipe
from study_rows import Row, latest_rows
from tuned_default import ORDER, RACE, is_searched

import nbt
from nbt.api._record import make_table_header
from nbt.training.results import EpochResult
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable
from nbt.tuning.space.space import Space

OUT = Path(__file__).resolve().parent / "recorded" / "race"


def main() -> None:
    """Writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/ and weights/")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the tables")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for row in latest_rows(RACE) if "curve" in row and is_searched(row["changes"])]
    space = varied_space(rows)
    for name in ORDER:
        task = Tasks(args.shared).task(name)
        profile = nbt.profile_fit(task).with_facts(dataset=Path(task.dataset).name, weights=Path(task.weights).name)
        header = make_table_header(task, space, EPOCHS)
        # The other tables know this folder by the name of its data set.
        dataset = "cub" if name == "CUB_200_2011" else header.dataset
        header = dataclasses.replace(header, dataset=dataset, profile=profile.to_dict(), design="race")
        runs = [run_of(row) for row in rows if row["dataset"] == name]
        path = args.out / f"{name.lower().replace('_200_2011', '50')}-{IMAGE_SIZE}.parquet"
        RecordedTable(header, runs).save(path)
        print(f"{path.name}: {len(runs)} runs", flush=True)


def varied_space(rows: Sequence[Row]) -> Space:
    """Returns the dimensions that some recipe varies; a search whose space lacks the others can use the tables, too."""
    space = Space.load("non_binary").with_fixed_epochs()
    recipes, default = [recipe(row["changes"]) for row in rows], space.default(EPOCHS)
    names = [dimension.name for dimension in space.dimensions]
    return space.without([name for name in names if all(r.value(name) == default.value(name) for r in recipes)])


def run_of(row: Row) -> RecordedRun:
    """Returns a row of the race as a run of a table; the test images were evaluated after the last epoch alone."""
    epochs = [dict(zip(CURVE, values, strict=True)) for values in row["curve"]]
    curve = tuple(EpochResult(epoch=number, **values) for number, values in enumerate(epochs, start=1))
    diverged = curve[-1].val_loss is None or row["val"] == 0.0 == row["test"]
    last = dataclasses.replace(curve[-1], diverged=diverged, watched_accuracy=row["test"])
    origin = f"anchor: {DEFAULT_RECIPE}" if row["recipe"] == 0 else "race"
    return RecordedRun(
        setting=row["recipe"],
        seed=row["seed"],
        origin=origin,
        settings=recipe(row["changes"]),
        curve=(*curve[:-1], last),
    )


if __name__ == "__main__":
    main()
