"""Recorded tables of the rows of two studies, with the profile of each task.

- `race`: the recipes that the race of `tuned_default.py` trained on the ten tuning data sets; recipes outside the
  default space are left out. They are experience of every search.
- `judging`: the random settings that `binary.py` trained on the ten judging data sets, and the default recipe that
  `tuned_default.py` trained with the same split. They judge search methods; no search reads them. The tuned default is
  left out: it is twice as long as all other runs.

Runs whose learning curve was not kept are left out.

    python studies/row_tables.py race --shared ../shared         # writes studies/recorded/race/NAME-64.parquet
    python studies/row_tables.py judging --shared ../shared      # writes studies/recorded/judging/NAME-64.parquet
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import binary
import torch
import tuned_default
from small_tasks import CURVE, EPOCHS, IMAGE_SIZE, MAX_TEST_IMAGES, Tasks, recipe
from study_rows import Row, latest_rows
from tuned_default import ORDER, is_searched

import nbt
from nbt.api._record import make_table_header
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE
from nbt.tuning.controller import BASELINE_ORIGIN_PREFIX
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable, TableHeader
from nbt.tuning.space.space import Space

FOLDER = Path(__file__).resolve().parent / "recorded"
RACE, JUDGING = "race", "judging"


def main() -> None:
    """Writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=(RACE, JUDGING))
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/ and weights/")
    parser.add_argument("--out", type=Path, help="folder of the tables")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs_of = race_runs() if args.kind == RACE else judging_runs()
    space = varied_space([run.settings for runs in runs_of.values() for run in runs])
    for name, runs in runs_of.items():
        path = (args.out or FOLDER / args.kind) / f"{name.lower().replace('_200_2011', '50')}-{IMAGE_SIZE}.parquet"
        RecordedTable(header_of(Tasks(args.shared), name, space, args.kind), runs).save(path)
        print(f"{path.name}: {len(runs)} runs", flush=True)


def race_runs() -> dict[str, list[RecordedRun]]:
    """Returns data set -> the runs of the race."""
    rows = [row for row in latest_rows(tuned_default.RACE) if "curve" in row and is_searched(row["changes"])]
    return {
        name: [
            run_of(row, row["recipe"], row["seed"], anchor(DEFAULT_RECIPE) if row["recipe"] == 0 else RACE)
            for row in rows
            if row["dataset"] == name
        ]
        for name in ORDER
    }


def judging_runs() -> dict[str, list[RecordedRun]]:
    """Returns data set -> the runs of the default recipe and of the random settings, all with the same split."""
    runs = defaultdict[str, list[RecordedRun]](list)
    for row in latest_rows(tuned_default.JUDGING):
        if row["seed"] == 0 and row["arm"] == tuned_default.BASE:
            runs[row["dataset"]].append(run_of(row, 0, 0, anchor(DEFAULT_RECIPE)))
    for row in latest_rows(binary.ROWS):
        if "curve" in row:
            number = 1 + binary.ARMS.index(row["arm"]) + len(binary.ARMS) * row["seed"]
            runs[row["dataset"]].append(run_of(row, number, 0, "random"))
    return {name: runs[name] for name in sorted(runs)}


def anchor(name: str) -> str:
    """Returns the origin of a recipe that every table has."""
    return f"{BASELINE_ORIGIN_PREFIX}{name}"


def header_of(tasks: Tasks, name: str, space: Space, design: str) -> TableHeader:
    """Returns the header of the table of a task; every run of it evaluated the test images after its last epoch."""
    task = tasks.task(name)
    profile = nbt.profile_fit(task).with_facts(dataset=Path(task.dataset).name, weights=Path(task.weights).name)
    header = make_table_header(task, space, EPOCHS)
    # The other tables know this folder by the name of its data set.
    dataset = "cub" if name == "CUB_200_2011" else header.dataset
    watched = min(len(task.split.test), MAX_TEST_IMAGES)
    return dataclasses.replace(header, dataset=dataset, profile=profile.to_dict(), design=design, watched=watched)


def varied_space(settings: Collection[TransferSettings]) -> Space:
    """Returns the dimensions that some run varies; a search whose space lacks the others can use the tables, too."""
    space = Space.load("non_binary").with_fixed_epochs()
    default = space.default(EPOCHS)
    names = [dimension.name for dimension in space.dimensions]
    return space.without([name for name in names if all(s.value(name) == default.value(name) for s in settings)])


def run_of(row: Row, setting: int, seed: int, origin: str) -> RecordedRun:
    """Returns a row as a run of a table; the test images were evaluated after the last epoch alone."""
    epochs = [dict(zip(CURVE, values, strict=True)) for values in row["curve"]]
    curve = tuple(EpochResult(epoch=number, **values) for number, values in enumerate(epochs, start=1))
    diverged = curve[-1].val_loss is None or row["val"] == 0.0 == row["test"]
    last = dataclasses.replace(curve[-1], diverged=diverged, watched_accuracy=row["test"])
    settings = recipe(row["changes"])
    return RecordedRun(setting=setting, seed=seed, origin=origin, settings=settings, curve=(*curve[:-1], last))


if __name__ == "__main__":
    main()
