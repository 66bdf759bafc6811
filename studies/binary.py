"""Study: does non-binary transfer end above binary transfer at equal cost, and on which axis?

Claim (Plested, Shen, Gedeon, arXiv 2107.08585): the best result on a data set needs its own number of transferred and
frozen layers, learning rates of different layers, and mix of L2 and L2-SP; all-or-nothing choices leave accuracy on
the table. Every arm draws its settings at random, each with a learning rate and a strength of the decay of its own:

- *binary*: everything trains, or only the head, or everything is new; the decay is L2 or L2-SP; one learning rate;
- *depth*: the shares of transferred and of frozen units instead of all or nothing;
- *rates*: a rate for the head, one for the other layers, and a slope over these, instead of one rate;
- *mix*: the mix of L2 and L2-SP and the units under L2-SP, instead of one of them;
- *all*: all three.

Everything else is the default recipe. Every data set has its own draws, and a run its own seed; split and test images
are the same for all runs of a data set, none of which has tuned the arms. Draw n of all arms and data sets comes before
draw n + 1, so that any number of complete draws is a study.

The result of an arm after k runs is the test accuracy of the best of k of its draws by validation accuracy, in the mean
over random orders of the draws; at equal cost, of as many draws as their CPU time allows, in units of the mean time of
a run of *binary*. Intervals are Student's over data sets.

Rule, on *all* minus *binary* at the cost of 10 runs: *confirmed* if the mean over the ten judging data sets is at least
1 point and its 95 % interval is above 0; *confirmed in part* if that interval is above 0 with a smaller mean, or if one
of the three axes alone has a 98.3 % interval above 0; else *not confirmed*. Fewer than 10 draws give no verdict.

    python studies/binary.py run --shared ../shared                # resumable; --shard divides the data sets
    python studies/binary.py report

Rows: `studies/results/binary.jsonl`, from draw 10 on with learning curves, of which `row_tables.py` makes recorded
tables. The report writes `binary.md` and `binary.svg`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from machine import machine
from scipy import stats
from shards import study_parser
from small_tasks import BACKBONE, IMAGE_SIZE, Tasks, recipe
from study_command import run_study
from study_rows import append_row, latest_rows

from nbt.seeds import derive_seed

RESULTS = Path(__file__).resolve().parent / "results"
ROWS, REPORT, FIGURE = (RESULTS / f"binary.{suffix}" for suffix in ("jsonl", "md", "svg"))
BINARY, ALL = "binary", "all"
AXES = ("depth", "rates", "mix")
ARMS = (BINARY, *AXES, ALL)
DRAWS, JUDGED_AT, N_ORDERS = 20, 10, 400
RATE, DECAY, SLOPE = (0.002, 0.1), (1e-5, 3e-2), (-1.5, 0.5)
STARTS: tuple[dict[str, float], ...] = ({}, {"frozen_depth": 1.0}, {"transfer_depth": 0.0})
START_SHARES = (0.6, 0.3, 0.1)
Row = dict[str, Any]


def main() -> None:
    """Runs the study or writes its report."""
    parser, run = study_parser(__doc__, ROWS, "data set")
    run.add_argument("--draws", type=int, default=DRAWS, help="draws per arm and data set")
    args = parser.parse_args()
    run_study(args, train_all, summarise, draw_figure, REPORT, FIGURE)


def train_all(args: argparse.Namespace) -> None:
    """Trains the missing runs of this process, breadth first."""
    part, parts = map(int, args.shard.split("/"))
    names = yaml.safe_load((args.shared / "data" / "tasks.yaml").read_text())["judging"][part::parts]
    tasks, deadline = Tasks(args.shared), time.monotonic() + 60 * args.minutes
    done = {(row["arm"], row["dataset"], row["seed"]) for row in latest_rows(args.rows)}
    for number in range(args.draws):
        for name in names:
            for arm in ARMS:
                if (arm, name, number) in done:
                    continue
                if time.monotonic() > deadline:
                    return
                changes = draw(arm, name, number)
                result = tasks.train(name, recipe(changes), number)
                append_row(args.rows, {"arm": arm, "dataset": name, "seed": number, "changes": changes, **result})
                print(f"draw {number}, {name}, {arm}: {100 * result['test']:.1f} %", flush=True)


def draw(arm: str, name: str, number: int) -> dict[str, Any]:
    """Returns how a draw of an arm on a data set differs from the default recipe."""
    rng = np.random.default_rng(derive_seed(0, "binary transfer", arm, name, number))
    rate, decay = (float(np.exp(rng.uniform(*np.log(bounds)))) for bounds in (RATE, DECAY))
    changes: dict[str, Any] = {"head_lr": rate, "body_lr": rate, "decay_strength": decay}
    is_varied = {axis: arm in (axis, ALL) for axis in AXES}
    if is_varied["depth"]:
        # Every third draw transfers all, and every third freezes nothing: the ends belong to the axis.
        changes["transfer_depth"] = 1.0 if rng.random() < 1 / 3 else float(rng.uniform(0.3, 1.0))
        changes["frozen_depth"] = 0.0 if rng.random() < 1 / 3 else float(rng.uniform(0.0, changes["transfer_depth"]))
    else:
        changes |= STARTS[int(rng.choice(len(STARTS), p=START_SHARES))]
    if is_varied["rates"]:
        slope = float(rng.uniform(*SLOPE))
        changes["body_lr"] = float(np.exp(rng.uniform(*np.log(RATE))))
        changes["layer_lr_shape"] = (slope, slope / 2, 0.0)
    if is_varied["mix"]:
        changes |= {"sp_mix": float(rng.uniform()), "sp_depth": float(rng.uniform())}
    else:
        changes["sp_mix"] = float(rng.integers(2))
    return changes


class Selections:
    """What the best of several draws by validation reaches on the test images, in the mean over random orders.

    Args:
        rows: The runs of one arm on one data set.
        unit: CPU seconds of one unit of cost.
    """

    def __init__(self, rows: Sequence[Row], unit: float) -> None:
        order = np.random.default_rng(0).permuted(np.tile(np.arange(len(rows)), (N_ORDERS, 1)), axis=1)
        val, test, cost = (np.array([row[key] for row in rows])[order] for key in ("val", "test", "cpu_seconds"))
        self._costs = np.cumsum(cost, axis=1) / unit
        # Of equal validation accuracies the first one counts, as in a search.
        is_best = np.hstack([np.ones((N_ORDERS, 1), bool), val[:, 1:] > np.maximum.accumulate(val, axis=1)[:, :-1]])
        last = np.maximum.accumulate(np.where(is_best, np.arange(len(rows)), 0), axis=1)
        self._reached = np.take_along_axis(test, last, axis=1)

    @property
    def total_cost(self) -> float:
        """Cost of all draws."""
        return float(self._costs[0, -1])

    def at_cost(self, cost: float) -> float:
        """Returns the test accuracy of the best of the draws within a cost; at least one draw is made."""
        counts = np.maximum((self._costs <= cost).sum(axis=1), 1)
        return float(self._reached[np.arange(N_ORDERS), counts - 1].mean())


def complete_draws(rows: Sequence[Row]) -> list[int]:
    """Returns the numbers of the draws that all arms have on all data sets."""
    keys = {(row["arm"], row["dataset"], row["seed"]) for row in rows}
    names = {row["dataset"] for row in rows}
    return [n for n in range(DRAWS) if names and all((arm, name, n) in keys for arm in ARMS for name in names)]


def selections(rows: Sequence[Row]) -> dict[str, dict[str, Selections]]:
    """Returns data set -> arm -> its selections, of the complete draws; empty without one."""
    draws = complete_draws(rows)
    by_key = {(row["arm"], row["dataset"], row["seed"]): row for row in rows}
    found: dict[str, dict[str, Selections]] = {}
    for name in sorted({row["dataset"] for row in rows}) if draws else ():
        runs = {arm: [by_key[arm, name, number] for number in draws] for arm in ARMS}
        unit = statistics.fmean(row["cpu_seconds"] for row in runs[BINARY])
        found[name] = {arm: Selections(of_arm, unit) for arm, of_arm in runs.items()}
    return found


def differences(found: Mapping[str, Mapping[str, Selections]], arm: str, cost: float) -> list[float]:
    """Returns, per data set, the points by which an arm ends above *binary* at a cost."""
    return [100 * (arms[arm].at_cost(cost) - arms[BINARY].at_cost(cost)) for arms in found.values()]


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Returns mean and Student's interval of values of independent data sets."""
    mean, error = statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    return mean, mean - half, mean + half


def verdict(found: Mapping[str, Mapping[str, Selections]], n_draws: int) -> str:
    """Returns the verdict by the rule of the docstring."""
    if n_draws < JUDGED_AT:
        return f"no verdict: {n_draws} of {JUDGED_AT} draws are complete"
    mean, low, _ = interval(differences(found, ALL, JUDGED_AT))
    if low > 0 and mean >= 1:
        return "confirmed"
    axes = [axis for axis in AXES if interval(differences(found, axis, JUDGED_AT), 1 - 0.05 / len(AXES))[1] > 0]
    return "confirmed in part" if low > 0 or axes else "not confirmed"


def summarise(rows: Sequence[Row]) -> str:
    """Returns the report."""
    found, n_draws = selections(rows), len(complete_draws(rows))
    text = [
        "# Binary and non-binary transfer",
        "",
        f"{len(rows)} runs on {len(found)} judging data sets, {n_draws} complete draws per arm; `{BACKBONE}`, "
        f"{IMAGE_SIZE} px, 12 epochs; {machine()}. Design and rule: `studies/binary.py`. Verdict: "
        f"{verdict(found, n_draws)}.",
        "",
    ]
    if not n_draws:
        return "\n".join(text)
    costs = [cost for cost in (1, 2, 5, 10, 20) if cost <= n_draws]
    header = "".join(f" {cost} |" for cost in costs)
    text += [f"| test accuracy at the cost of so many runs |{header}", "|---" * (len(costs) + 1) + "|"]
    for arm in ARMS:
        means = [statistics.fmean(100 * arms[arm].at_cost(cost) for arms in found.values()) for cost in costs]
        text.append(f"| {arm} |" + "".join(f" {mean:.1f} |" for mean in means))
    text += ["", f"| minus binary, points [95 %] |{header}", "|---" * (len(costs) + 1) + "|"]
    for arm in ARMS[1:]:
        cells = (interval(differences(found, arm, cost)) for cost in costs)
        text.append(f"| {arm} |" + "".join(f" {mean:+.1f} [{low:+.1f}, {high:+.1f}] |" for mean, low, high in cells))
    cost = min(JUDGED_AT, n_draws)
    text += ["", f"| at the cost of {cost} runs | " + " | ".join(ARMS) + " |", "|---" * (len(ARMS) + 1) + "|"]
    for name, arms in found.items():
        text.append(f"| {name} |" + "".join(f" {100 * arms[arm].at_cost(cost):.1f} |" for arm in ARMS))
    return "\n".join([*text, ""])


def draw_figure(rows: Sequence[Row], path: Path) -> None:
    """Draws the mean test accuracy of the arms against cost."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    found = selections(rows)
    most = min((arm.total_cost for arms in found.values() for arm in arms.values()), default=0.0)
    if most < 1:
        return
    costs = np.linspace(1, most, 60)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "binary", "font.size": 9}):
        axes = (figure := Figure(figsize=(5, 3.2), layout="constrained")).subplots()
        for arm in ARMS:
            axes.plot(
                costs, [statistics.fmean(100 * a[arm].at_cost(c) for a in found.values()) for c in costs], label=arm
            )
        axes.set(xlabel="cost, in runs of binary transfer", ylabel="test accuracy of the best by validation, %")
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
