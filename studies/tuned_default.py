"""Study: a tuned default recipe, found on the tuning data sets and judged on the judging ones.

Claim: one recipe, found once on other data sets, is better than plain fine-tuning at no higher cost. Rule: confirmed if
on the judging data sets its mean gain in test accuracy over the default recipe is at least 2 points, its 95 % interval
over data sets is above 0, and its mean CPU time is at most that of the default recipe.

- `race` (tuning data sets): a recipe is trained on one data set after the other, in a fixed order, and is given up when
  the mean of its gains is clearly below that of the best recipe on the same data sets. A new recipe is a mutation of
  one of the best, a cross of two of them, or a draw in which most techniques are off. The gain is that of accuracy on
  validation and test images together, relative to the default recipe (mean of two seeds). Recipes whose CPU time is
  above that of the default recipe are not chosen. The best recipes get a second seed on all data sets.
- `complete` (tuning data sets): recipes of the race that were given up after a few data sets, variations of the chosen
  recipe along one axis each, and rows without learning curves are trained on all tuning data sets, so that the rows are
  recorded tables with equal settings (`row_tables.py`).
- `judge` (judging data sets): default recipe, tuned recipe, and what profile and shipped tables suggest for the task
  before any training (the settings that a search runs after the tuned default), with three seeds, each with its own
  split, order and new weights; test images only.

    python studies/tuned_default.py race --shared ../shared --worker 0 --workers 2 --minutes 60   # once per worker
    python studies/tuned_default.py judge --shared ../shared
    python studies/tuned_default.py report

Race and judgement resume. Rows are in `studies/results/tuned_default_race.jsonl` and `tuned_default_judging.jsonl`; the
report also writes the chosen recipe, `tuned_default.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from machine import machine
from small_tasks import BACKBONE, EPOCHS, IMAGE_SIZE, Tasks, changed, recipe
from study_rows import Row, append_row, latest_rows

from nbt.seeds import derive_seed
from nbt.settings import TransferSettings
from nbt.tuning.experience.informed_design import draw_params
from nbt.tuning.intervals import t_interval
from nbt.tuning.space.sampling import mutate
from nbt.tuning.space.space import Space

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
RACE, JUDGING = RESULTS / "tuned_default_race.jsonl", RESULTS / "tuned_default_judging.jsonl"
REPORT, CHOSEN = RESULTS / "tuned_default.md", RESULTS / "tuned_default.json"
ORDER = ["sketch7", "esc10", "intel6", "corn4", "kmnist10", "neu6", "pokemon25", "dtd10", "digits", "CUB_200_2011"]
EXCLUDED = ("epochs", "linearized", "target_scale", "zap_", "transfer_depth", "init", "blend", "frozen_top")
"""Beginnings of dimensions that are not varied: they are slow, or make sense for other tasks than these."""
MAX_COST, FIRST_TEST, MARGIN, N_BEST, N_FULL = 1.0, 2, 5.0, 3, 10
BASE, TUNED, PROFILE = "default recipe", "tuned default", "profile and experience"

STARTS: list[dict[str, Any]] = [
    {},
    {"frozen_depth": 1.0},
    {"frozen_depth": 0.5},
    {"sp_mix": 1.0, "decay_strength": 0.01},
    {"frozen_depth": 0.5, "sp_mix": 1.0, "decay_strength": 0.01},
    {"head_lr": 0.05, "body_lr": 0.005, "layer_lr_shape": (-1.0, -0.5, 0.0)},
    {"frozen_depth": 0.4, "label_smoothing": 0.1, "ema": 0.98},
    {"frozen_depth": 0.3, "optimizer": "adamw", "head_lr": 0.003, "body_lr": 0.001},
    {"frozen_depth": 0.5, "batch_size": 16, "sp_mix": 0.9, "decay_strength": 0.003},
    {"head_scale": 0.0, "feature_norm": "batch", "frozen_depth": 0.5, "head_lr": 0.03},
    {"frozen_depth": 0.25, "label_smoothing": 0.1, "ema": 0.98},
    {"frozen_depth": 0.4, "label_smoothing": 0.1, "ema": 0.98, "sp_mix": 1.0, "decay_strength": 0.01},
    {"label_smoothing": 0.1, "ema": 0.98},
    {"frozen_depth": 0.4, "label_smoothing": 0.1, "ema": 0.98, "batch_size": 16},
    {"frozen_depth": 0.4, "label_smoothing": 0.1, "ema": 0.98, "head_lr": 0.02, "body_lr": 0.02},
    {"frozen_depth": 0.4, "ema": 0.98},
    {"frozen_depth": 0.4, "label_smoothing": 0.1},
    {"frozen_depth": 0.4, "label_smoothing": 0.1, "ema": 0.98, "mixup": 0.1},
    {"frozen_depth": 0.25, "label_smoothing": 0.1, "batch_size": 16},
    {"frozen_depth": 0.4, "label_smoothing": 0.1, "ema": 0.98, "augmentation": "color"},
    {"frozen_depth": 0.3, "batch_size": 16, "ema": 0.995, "sp_mix": 1.0, "decay_strength": 0.003},
    {"frozen_depth": 0.4, "label_smoothing": 0.1, "batch_size": 16, "head_lr": 0.005, "body_lr": 0.005},
    {"frozen_depth": 0.4, "label_smoothing": 0.1, "epochs": 24},
    {"frozen_depth": 0.5, "label_smoothing": 0.1, "epochs": 24, "sp_mix": 1.0, "decay_strength": 0.01},
    {"frozen_depth": 0.4, "label_smoothing": 0.1, "epochs": 24, "ema": 0.98},
    {"frozen_depth": 0.25, "label_smoothing": 0.1, "epochs": 18},
]
FROZEN: dict[str, Any] = {"frozen_depth": 0.4, "label_smoothing": 0.1}
AXES: list[dict[str, Any]] = [
    {"label_smoothing": 0.1},
    {**FROZEN, "augmentation": "none"},
    {"augmentation": "none"},
    {**FROZEN, "frozen_depth": 0.2},
    {**FROZEN, "frozen_depth": 0.6},
    {**FROZEN, "body_lr": 0.003},
    {**FROZEN, "body_lr": 0.03},
    {"label_smoothing": 0.1, "head_lr": 0.03, "body_lr": 0.03},
    {**FROZEN, "head_lr": 0.05},
    {"batch_size": 16, "body_lr": 0.03, "label_smoothing": 0.1},
    {**FROZEN, "layer_lr_shape": [-1.0, -0.5, 0.0]},
    {**FROZEN, "mixup": 0.2},
    {**FROZEN, "optimizer": "adamw", "head_lr": 0.001, "body_lr": 0.0003},
    {"optimizer": "adamw", "head_lr": 0.001, "body_lr": 0.001, "label_smoothing": 0.1},
    {"transfer_depth": 0.8},
    {"transfer_depth": 0.5},
    {**FROZEN, "sp_mix": 1.0, "decay_strength": 0.03},
    {"feature_norm": "batch", "label_smoothing": 0.1},
]
"""Variations along one axis each, trained by `complete`; their numbers begin at `FIRST_AXIS`."""
FIRST_AXIS, FIRST_DRAWN = 50, 100
FIRST_RECIPES = 18  # recipes of the race that `complete` trains before the variations


def main() -> None:
    """Runs a part of the study or writes its report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("race", "search on the tuning data sets"),
        ("complete", "train all recipes on all tuning data sets"),
        ("judge", "compare on the judging data sets"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--shared", type=Path, required=True, help="folder with data/ and weights/")
        command.add_argument("--worker", type=int, default=0, help="number of this process, from 0")
        command.add_argument("--workers", type=int, default=1, help="number of processes")
        command.add_argument("--minutes", type=float, default=60.0, help="no new recipe or run after this time")
        command.add_argument("--repeat", action="store_true", help="race: train the best recipes with a second seed")
    commands.add_parser("report", help="write the report of the stored rows")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "race":
        Race(Tasks(args.shared), args).run(time.monotonic() + 60 * args.minutes)
    elif args.command == "complete":
        Race(Tasks(args.shared), args).complete(time.monotonic() + 60 * args.minutes)
    elif args.command == "judge":
        judge(args, time.monotonic() + 60 * args.minutes)
    else:
        REPORT.write_text(report(), encoding="utf-8")
        number = repeated(latest_rows(RACE))[0][0]
        CHOSEN.write_text(json.dumps({"changes": changes_of(latest_rows(RACE), number)}) + "\n", encoding="utf-8")
        print(REPORT.read_text())


class Race:
    """The search for a recipe on the tuning data sets; several processes share its rows."""

    def __init__(self, tasks: Tasks, args: argparse.Namespace) -> None:
        space = Space.load("non_binary").with_fixed_epochs()
        kept = [d for d in space.dimensions if not d.name.startswith(EXCLUDED)]
        dimensions = tuple(dataclasses.replace(d, share_of="") for d in kept)  # everything is transferred
        self._space = dataclasses.replace(space, dimensions=dimensions)
        self._tasks, self._worker, self._workers, self._repeats = tasks, args.worker, args.workers, args.repeat

    def run(self, deadline: float) -> None:
        """Trains recipes until the deadline; finishes the interrupted one of this process first."""
        for seed in (0, 1):
            for name in ORDER:  # the reference of all gains
                known = any(r["recipe"] == 0 and (r["dataset"], r["seed"]) == (name, seed) for r in latest_rows(RACE))
                if not known and ORDER.index(name) % self._workers == self._worker:
                    self._train(0, {}, name, seed)
        while not ready(latest_rows(RACE)):
            time.sleep(2.0)
        while time.monotonic() < deadline:
            rows = latest_rows(RACE)
            number, seed = (self._repeat(rows), 1) if self._repeats else (self._next_number(rows), 0)
            if number is None:
                return
            changes = next((r["changes"] for r in rows if r["recipe"] == number), None) or self._propose(number, rows)
            self._evaluate(number, changes, seed)

    def complete(self, deadline: float) -> None:
        """Trains the recipes that have the length of the race on all data sets, those of most data sets first.

        Rows without a learning curve are trained again. Runs of one recipe follow each other.
        """
        rows = latest_rows(RACE)
        numbers = {row["recipe"]: row["changes"] for row in rows if is_searched(row["changes"])}
        numbers |= {FIRST_AXIS + k: changes for k, changes in enumerate(AXES)}
        counts = {n: sum(row["recipe"] == n and "curve" in row for row in rows) for n in numbers}
        order = sorted(numbers, key=lambda n: (FIRST_AXIS <= n < FIRST_DRAWN, n >= FIRST_DRAWN, -counts[n], n))
        order = [*order[:FIRST_RECIPES], *(n for n in order if FIRST_AXIS <= n < FIRST_DRAWN), *order[FIRST_RECIPES:]]
        for number in dict.fromkeys(order):
            for name in ORDER:
                done = any(
                    r["recipe"] == number and r.get("dataset") == name and "curve" in r for r in latest_rows(RACE)
                )
                if time.monotonic() < deadline and not done and number % self._workers == self._worker:
                    self._train(number, numbers[number], name, 0)

    def _evaluate(self, number: int, changes: Mapping[str, Any], seed: int) -> None:
        for k, name in enumerate(ORDER):
            rows = latest_rows(RACE)
            mine = gains(rows, seed).get(number, {})
            if seed == 0 and k >= FIRST_TEST and number >= N_FULL and self._is_behind(mine, rows, ORDER[:k]):
                append_row(RACE, {"recipe": number, "changes": changes, "ended": k})
                return
            if name not in mine:
                self._train(number, changes, name, seed)

    def _train(self, number: int, changes: Mapping[str, Any], name: str, seed: int) -> None:
        result = self._tasks.train(name, recipe(changes), seed)
        append_row(RACE, {"recipe": number, "dataset": name, "seed": seed, "changes": changes, **result})
        print(f"recipe {number}, {name}, seed {seed}: {100 * pooled(result):.1f} %", flush=True)

    def _is_behind(self, mine: Mapping[str, float], rows: list[Row], names: list[str]) -> bool:
        complete = [values for values in gains(rows, 0).values() if len(values) == len(ORDER)]
        best = max((statistics.fmean(values[n] for n in names) for values in complete), default=-np.inf)
        return bool(statistics.fmean(mine[n] for n in names) < best - MARGIN / np.sqrt(len(names)))

    def _next_number(self, rows: list[Row]) -> int:
        """Returns the number of the interrupted recipe of this process, or a new one."""
        own = sorted({r["recipe"] for r in rows if r["recipe"] % self._workers == self._worker})
        known = gains(rows, 0)
        for number in own:
            ended = any("ended" in r for r in rows if r["recipe"] == number)
            if not ended and len(known.get(number, {})) < len(ORDER):
                return int(number)
        left = (n for n in range(self._worker, len(STARTS), self._workers) if n not in own)
        drawn = [n for n in own if n >= FIRST_DRAWN]
        return next(left, drawn[-1] + self._workers if drawn else FIRST_DRAWN + self._worker)

    def _repeat(self, rows: list[Row]) -> int | None:
        """Returns one of the best recipes whose second seed is missing; None if there is none for this process."""
        for number, _ in ranking(rows)[:N_BEST]:
            if number % self._workers == self._worker and len(gains(rows, 1).get(number, {})) < len(ORDER):
                return number
        return None

    def _propose(self, number: int, rows: list[Row]) -> dict[str, Any]:
        if number < len(STARTS):
            return STARTS[number]
        rng = np.random.default_rng(derive_seed(0, "tuned default", number))
        known = [row["changes"] for row in rows]
        numbers = [n for n, _ in ranking(rows) if is_searched(changes_of(rows, n))]
        best = [recipe(changes_of(rows, n)) for n in numbers[: 2 * N_BEST]]
        while True:
            changes = changed(self._space.settings(self._variation(best, rng), EPOCHS))
            if changes not in known:
                return changes

    def _variation(self, best: Sequence[TransferSettings], rng: np.random.Generator) -> dict[str, Any]:
        """Returns the parameters of a draw, or of a mutation of one of the best recipes or of a cross of two."""
        fresh = draw_params(self._space, rng)
        if rng.random() < 0.15 or not best:
            return fresh
        first, second = (self._space.params(best[int(len(best) * rng.random() ** 2)]) for _ in range(2))
        if rng.random() < 0.4:
            first = {name: (first if rng.random() < 0.5 else second)[name] for name in first}
        return mutate(self._space, first, fresh, rng)


def pooled(row: Mapping[str, Any]) -> float:
    """Returns the accuracy on validation and test images together."""
    return float((row["val"] * row["n_val"] + row["test"] * row["n_test"]) / (row["n_val"] + row["n_test"]))


def ready(rows: list[Row]) -> bool:
    """Returns whether the reference of all gains is complete."""
    return len([r for r in rows if r["recipe"] == 0 and "dataset" in r]) >= 2 * len(ORDER)


def reference(rows: list[Row], value: Callable[[Row], float]) -> dict[str, float]:
    """Returns the mean value of the default recipe by data set."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["recipe"] == 0 and "dataset" in row:
            found[row["dataset"]].append(value(row))
    return {name: statistics.fmean(values) for name, values in found.items()}


def gains(rows: list[Row], seed: int | None) -> dict[int, dict[str, float]]:
    """Returns recipe -> data set -> gain over the default recipe in points; the mean over seeds if `seed` is None."""
    base = reference(rows, pooled)
    found: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if "dataset" in row and seed in (None, row["seed"]) and row["dataset"] in base:
            found[row["recipe"]][row["dataset"]].append(100 * (pooled(row) - base[row["dataset"]]))
    return {n: {name: statistics.fmean(v) for name, v in values.items()} for n, values in found.items()}


def costs(rows: list[Row]) -> dict[int, float]:
    """Returns the mean CPU time of each recipe relative to the default recipe, over its data sets."""
    base = reference(rows, lambda row: row["cpu_seconds"])
    found: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if "dataset" in row:
            found[row["recipe"]].append(row["cpu_seconds"] / base[row["dataset"]])
    return {number: statistics.fmean(values) for number, values in found.items()}


def ranking(rows: list[Row], without: Iterable[str] = ()) -> list[tuple[int, float]]:
    """Returns recipes trained on all data sets within the cost, and their mean gains, best first.

    Args:
        rows: Rows of the race.
        without: Data sets that do not count.
    """
    names, cost = [name for name in ORDER if name not in without], costs(rows)
    means = {
        number: statistics.fmean(values[name] for name in names)
        for number, values in gains(rows, None).items()
        if len(values) == len(ORDER) and cost[number] <= MAX_COST and "frozen_top" not in changes_of(rows, number)
    }
    return sorted(means.items(), key=lambda item: -item[1])


def changes_of(rows: list[Row], number: int) -> dict[str, Any]:
    """Returns the changes of a recipe."""
    return next(row["changes"] for row in rows if row["recipe"] == number)


def is_searched(changes: Mapping[str, Any]) -> bool:
    """Returns whether a recipe changes only dimensions that the race varies."""
    return not any(name.startswith(EXCLUDED) for name in changes)


def repeated(rows: list[Row]) -> list[tuple[int, float]]:
    """Returns the ranking of the recipes with both seeds on all data sets, without the default recipe."""
    second = gains(rows, 1)
    return [(n, mean) for n, mean in ranking(rows) if n > 0 and len(second.get(n, {})) == len(ORDER)]


def judge(args: argparse.Namespace, deadline: float) -> None:
    """Trains the three recipes on the judging data sets, breadth first."""
    tuned = changes_of(latest_rows(RACE), repeated(latest_rows(RACE))[0][0])
    names = yaml.safe_load((args.shared / "data" / "tasks.yaml").read_text())["judging"]
    for seed in range(3):
        for name in names[args.worker :: args.workers]:
            tasks = Tasks(args.shared)
            for arm, changes in ((BASE, {}), (TUNED, tuned), (PROFILE, None)):
                key = {"arm": arm, "dataset": name, "seed": seed, **({} if changes is None else {"changes": changes})}
                if time.monotonic() < deadline and not any(key.items() <= row.items() for row in latest_rows(JUDGING)):
                    settings = tasks.recommended(name, seed) if changes is None else recipe(changes)
                    result = tasks.train(name, settings, seed, seed)
                    append_row(JUDGING, {**key, "changes": changed(settings), **result})
                    print(arm, name, seed, flush=True)


def report() -> str:
    """Returns the report."""
    rows, judged = latest_rows(RACE), latest_rows(JUDGING)
    number, mean = repeated(rows)[0]
    changes = changes_of(rows, number)
    complete = {n for n, values in gains(rows, 0).items() if len(values) == len(ORDER)}
    lines = [
        "# A tuned default recipe",
        "",
        f"{machine()}. `{BACKBONE}`, {IMAGE_SIZE} px, {EPOCHS} epochs. {len(gains(rows, 0)) - 1} recipes on "
        f"{len(ORDER)} tuning data sets, {len(complete) - 1} of them on all.",
        "",
        f"Chosen: recipe {number}, {mean:+.2f} points over the default recipe on the tuning data sets, "
        f"{costs(rows)[number]:.2f} of its CPU time: `{json.dumps(changes)}`.",
        "",
        f"Choosing by nine data sets and judging on the tenth, in turn: {left_out(rows):+.2f} points.",
        "",
        *judging_lines([r for r in judged if r["arm"] != TUNED or r["changes"] == changes]),
    ]
    return "\n".join(lines) + "\n"


def left_out(rows: list[Row]) -> float:
    """Returns the mean gain on the data set that is left out when a recipe is chosen by the others."""
    known = gains(rows, None)
    return statistics.fmean(known[ranking(rows, [name])[0][0]][name] for name in ORDER)


def judging_lines(rows: list[Row]) -> list[str]:
    """Returns the table of the judging data sets and the verdicts; nothing without rows."""
    values: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(rows, key=lambda row: row["seed"]):
        values[row["dataset"]][row["arm"]].append(row)
    compared = {
        arm: [compare(name, arms, arm) for name, arms in values.items() if arms[arm]] for arm in (TUNED, PROFILE)
    }
    if any(len(found) < 2 for found in compared.values()):
        return []
    head = ["judging data set", "seeds", "default, test %"]
    head += [f"{arm}: {what}" for arm in compared for what in ("test %", "gain", "CPU time, ratio")]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for first, second in zip(*compared.values(), strict=True):
        cells = [first["dataset"], str(first["seeds"]), f"{first['base']:.1f}"]
        for found in (first, second):
            cells += [f"{found['base'] + found['gain']:.1f}", f"{found['gain']:+.1f}", f"{found['cost']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *(verdict(arm, found) for arm, found in compared.items())]


def compare(name: str, arms: Mapping[str, list[Row]], arm: str) -> Row:
    """Returns the gain of a recipe on a data set over the default recipe, over the seeds that both have."""
    n = min(len(arms[BASE]), len(arms[arm]))
    base, other = arms[BASE][:n], arms[arm][:n]
    first, second = (100 * statistics.fmean(row["test"] for row in rows) for rows in (base, other))
    cost = sum(row["cpu_seconds"] for row in other) / sum(row["cpu_seconds"] for row in base)
    return {"dataset": name, "seeds": n, "base": first, "gain": second - first, "cost": cost}


def verdict(arm: str, found: list[Row]) -> str:
    """Returns the mean gain of a recipe with its interval over data sets, and whether it is what the claim says."""
    interval, cost = t_interval([row["gain"] for row in found]), statistics.fmean(row["cost"] for row in found)
    confirmed = interval.mean >= 2.0 and interval.low is not None and interval.low > 0.0 and cost <= 1.0
    return (
        f"- {arm}: mean gain {interval.mean:+.2f} points, 95 % interval over data sets [{interval.low:+.2f}, "
        f"{interval.high:+.2f}], worst {min(row['gain'] for row in found):+.1f}, CPU time {cost:.2f} of the default "
        f"recipe's: {'confirmed' if confirmed else 'not confirmed'}."
    )


if __name__ == "__main__":
    main()
