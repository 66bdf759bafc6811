"""Study: what do the fit profile, the priors and the recorded tables know before the first trial?

The runs of `binary.py` are random settings on ten judging data sets, which played no part in the priors and are in no
recorded table. For each of them the priors get the facts of the data and the fit profile, as in a search of the space
"non_binary", and score the settings of all its runs. The rank correlation (Spearman) of these scores with the test
accuracies tells what a source of knowledge is worth; its mean over the data sets has Student's 95 % interval. A source
that scores all runs of a data set alike does not count there; *rules* is the weighted sum of all priors, *together* is
what a search starts from.

Recorded tasks are one source; `surrogates.py` compares models of them.

Then the axes: by how much runs with a property end above the mean of the runs of their data set that varied the
axis, and how flat the optimum is: the share of an arm's runs within 3 points of the best run on the data set.

    python studies/prior_check.py --shared ../shared      # five minutes on one core; needs the rows of binary.py

Writes `studies/results/prior_check.md`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from binary import ARMS, Row, interval
from binary import ROWS as RUNS
from machine import machine
from scipy.stats import spearmanr
from small_tasks import BACKBONE, EPOCHS, IMAGE_SIZE, Tasks, recipe
from study_rows import latest_rows

import nbt
from nbt.task.summary import dataset_summary
from nbt.task.task import Task
from nbt.tuning.experience.folder import load_experience
from nbt.tuning.space.space import Space
from nbt.tuning.surrogate.prior_surrogate import RECORDED_TASKS, PriorSurrogate
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import TransferredPriors

HERE = Path(__file__).resolve().parent
REPORT = HERE / "results" / "prior_check.md"
NEAR = 0.03
RULES, TOGETHER = "*rules*", "*together*"
# Axis -> arms that varied it, and properties of their settings.
PROPERTIES: dict[str, tuple[tuple[str, ...], dict[str, Callable[[Mapping[str, float]], bool]]]] = {
    "share of frozen units": (
        ("depth", "all"),
        {
            "0": lambda changes: changes["frozen_depth"] == 0,
            "to .3": lambda changes: 0 < changes["frozen_depth"] <= 0.3,
            ".3 to .5": lambda changes: 0.3 < changes["frozen_depth"] <= 0.5,
            "above .5": lambda changes: changes["frozen_depth"] > 0.5,
        },
    ),
    "share of transferred units": (
        ("depth", "all"),
        {
            "to .5": lambda changes: changes["transfer_depth"] <= 0.5,
            ".5 to .8": lambda changes: 0.5 < changes["transfer_depth"] <= 0.8,
            ".8 to 1": lambda changes: 0.8 < changes["transfer_depth"] < 1,
            "1": lambda changes: changes["transfer_depth"] == 1,
        },
    ),
    "share of L2-SP in the decay": (
        ("mix", "all"),
        {
            "to .5": lambda changes: changes["sp_mix"] <= 0.5,
            "above .5": lambda changes: changes["sp_mix"] > 0.5,
        },
    ),
}


def main() -> None:
    """Computes all correlations and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/ and weights/")
    args = parser.parse_args()
    torch.set_num_threads(1)
    by_dataset: dict[str, list[Row]] = {}
    for row in latest_rows(RUNS):
        by_dataset.setdefault(row["dataset"], []).append(row)
    tasks = Tasks(args.shared)
    found = {name: correlations(tasks.task(name), rows) for name, rows in sorted(by_dataset.items())}
    REPORT.write_text(summarise(found, by_dataset), encoding="utf-8")
    print(REPORT.read_text())


def correlations(task: Task, rows: Sequence[Row]) -> dict[str, float]:
    """Returns the rank correlation of each source's scores with the test accuracies of the runs on a data set."""
    surrogate = surrogate_of(task)
    settings, results = [recipe(row["changes"]) for row in rows], [row["test"] for row in rows]
    scores = surrogate.source_scores(settings)
    weights = np.array([[source.mean] for source in surrogate.sources])
    is_recorded = np.array([source.name == RECORDED_TASKS for source in surrogate.sources])
    by_name = {
        source.name: values for source, values in zip(surrogate.sources, scores, strict=True) if source.mean != 0
    }
    for name, chosen in ((RULES, ~is_recorded), (TOGETHER, np.ones_like(is_recorded))):
        by_name[name] = (weights * scores)[chosen].sum(axis=0)
    judged = {name: values for name, values in by_name.items() if np.ptp(values) > 1e-9}
    return {name: float(spearmanr(values, results).statistic) for name, values in judged.items()}


def surrogate_of(task: Task) -> PriorSurrogate:
    """Returns what a search of a data set starts from; the recorded tables are those shipped with nbt."""
    target = Target.of(dataset_summary(task), nbt.profile_fit(task).to_dict(), EPOCHS)
    space = Space.load("non_binary").with_fixed_epochs()
    return TransferredPriors(load_experience(None, space)).surrogate(target, space)


def summarise(found: Mapping[str, Mapping[str, float]], by_dataset: Mapping[str, Sequence[Row]]) -> str:
    """Returns the report."""
    n_runs = sum(map(len, by_dataset.values()))
    text = [
        "# What is known before the first trial",
        "",
        f"{n_runs} runs of random settings on {len(found)} judging data sets (`studies/binary.py`); `{BACKBONE}`, "
        f"{IMAGE_SIZE} px; {machine()}. Design: `studies/prior_check.py`.",
        "",
        "| source | rank correlation with test accuracy [95 %] | above 0 |",
        "|---|---|---|",
    ]
    names = dict.fromkeys(name for of_dataset in found.values() for name in of_dataset)
    for name in sorted(names, key=lambda name: (name.startswith("*"), name.startswith("recorded"))):
        values = [of_dataset[name] for of_dataset in found.values() if name in of_dataset]
        text.append(f"| {name} | {_mean_text(values, '{:+.2f}')} | {sum(v > 0 for v in values)} of {len(values)} |")
    for axis, (arms, properties) in PROPERTIES.items():
        text += [
            "",
            f"| {axis} | runs | points above the data set's mean [95 % over data sets] | CPU s |",
            "|---|---|---|---|",
        ]
        for label, has in properties.items():
            text.append(f"| {label} | {_property_cells(by_dataset.values(), arms, has)} |")
    text += ["", f"| arm | share of runs within {100 * NEAR:.0f} points of the data set's best run |", "|---|---|"]
    for arm in ARMS:
        shares = [
            statistics.fmean(row["test"] > max(r["test"] for r in rows) - NEAR for row in rows if row["arm"] == arm)
            for rows in by_dataset.values()
        ]
        text.append(f"| {arm} | {100 * statistics.fmean(shares):.0f} % |")
    return "\n".join([*text, ""])


def _property_cells(
    datasets: Iterable[Sequence[Row]], arms: Sequence[str], has: Callable[[Mapping[str, float]], bool]
) -> str:
    """Returns the cells of a property: number of runs, points above the mean of the arms, mean CPU time."""
    gains, seconds = list[float](), list[float]()
    for rows in datasets:
        varied = [row for row in rows if row["arm"] in arms]
        chosen = [row for row in varied if has(row["changes"])]
        if chosen:
            mean = statistics.fmean(row["test"] for row in varied)
            gains.append(100 * (statistics.fmean(row["test"] for row in chosen) - mean))
            seconds += [row["cpu_seconds"] for row in chosen]
    if not seconds:
        return "0 | |"
    return f"{len(seconds)} | {_mean_text(gains, '{:+.1f}')} | {statistics.fmean(seconds):.0f}"


def _mean_text(values: Sequence[float], form: str) -> str:
    """Returns the mean with its interval, if there are several values."""
    if len(values) < 2:
        return form.format(values[0])
    return "{} [{}, {}]".format(*(form.format(value) for value in interval(values)))


if __name__ == "__main__":
    main()
