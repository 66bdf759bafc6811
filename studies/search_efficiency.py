"""Study: what do priors and pruner save?

Replays every search method on the recorded tasks, leave-one-task-out (`nbt replay`), and puts the figures beside the
goals of the project. Beside the guided search stand its parts (priors alone, pruner alone, recorded tasks alone, rules
alone), two searches that are told wrong things (the profile of the least similar task; everything turned round), and a
portfolio that needs no fit measure. It also measures

- how often the pruner stopped a trial that would have beaten the incumbent (the recorded run says so),
- whether the forecaster's 80 % intervals hold on curves of tasks that it has not seen,
- the rank of the first recommendation, before any training, beside the best of ten random settings,
- what a proposal and a pruning decision cost.

    python studies/search_efficiency.py [--seeds 20] [--workers 2]     # about half an hour on two cores

Results: `studies/results/search_efficiency/` (`report.md`, `report.json`, and the tables and figure of `nbt replay`).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from nbt.report.benchmark import write_benchmark
from nbt.seeds import derive_seed
from nbt.tuning.baseline_recipes import baseline_recipes
from nbt.tuning.benchmark.ground_truth import GroundTruth, estimate_ground_truth
from nbt.tuning.benchmark.methods import get_method, leave_dataset_out, method_names
from nbt.tuning.benchmark.metrics import bootstrap_median
from nbt.tuning.benchmark.results import ReplayResult, TaskResult
from nbt.tuning.benchmark.runner import replay, replay_search
from nbt.tuning.benchmark.tabular import TabularBenchmark
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.intervals import wilson_interval
from nbt.tuning.pruners.curve_forecast import probe_logit_score, table_curves
from nbt.tuning.pruners.fit_pruner import FitPruner
from nbt.tuning.samplers.bayesian import BayesianSampler
from nbt.tuning.space.space import Space
from nbt.tuning.surrogate.task_model import target_from_header
from nbt.tuning.transferred_priors import TransferredPriors

HERE = Path(__file__).parent
OUT = HERE / "results" / "search_efficiency"
GUIDED, RANDOM = "guided", "random"
RIVALS = ("tpe+hyperband", "asha")
BASELINE = "tpe+asha"
WRONG = ("wrong profile", "inverted")
RANDOM_TRIES = 10
SCHEDULE = (2, 3, 4, 6, 8, 10)


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tables", type=Path, nargs="*", default=sorted((HERE / "recorded").glob("*.parquet")))
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args()
    tables = [RecordedTable.load(path) for path in chosen.tables]
    space = Space.load("non_binary")
    before = {
        "recommendation": recommendations(tables, space),
        "intervals": intervals(tables),
        "cost": costs(tables, space),
    }
    print(json.dumps(before, indent=1), flush=True)
    started = time.perf_counter()
    result = replay(
        tables,
        space=space,
        methods=method_names(),
        seeds=chosen.seeds,
        workers=chosen.workers,
        on_progress=lambda done, total: print(f"\r{done}/{total}", end="", flush=True),
    )
    minutes = (time.perf_counter() - started) / 60
    write_benchmark(without_ablations(result), chosen.out)
    found = {
        "machine": machine(),
        "seeds": chosen.seeds,
        "minutes": round(minutes, 1),
        "goals": goals(result),
        "stops": stops(result, [TabularBenchmark(table, space) for table in tables]),
        **before,
    }
    (chosen.out / "report.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (chosen.out / "report.md").write_text(write(found, result), encoding="utf-8")
    print(f"\n{chosen.out / 'report.md'}")


def without_ablations(result: ReplayResult) -> ReplayResult:
    """Returns the result for the methods that `nbt replay` compares when nothing is said; the figure stays readable."""
    names = method_names(ablations=False)
    tasks = [replace(task, methods={name: task.methods[name] for name in names}) for task in result.tasks]
    return replace(result, tasks=tasks, methods={name: result.methods[name] for name in names})


def goals(result: ReplayResult) -> dict[str, Any]:
    """Returns epochs to the mark by task and method, and the ratios that the goals speak of, by both judges."""
    return {accuracy_estimate: _goals(result.tasks, accuracy_estimate) for accuracy_estimate in ("test", "smoothed")}


def _goals(tasks: Sequence[TaskResult], accuracy_estimate: str) -> dict[str, Any]:
    epochs = {
        task.name: {name: _median(task, name, accuracy_estimate) for name in task.methods}
        | {"horizon": float(task.horizon)}
        for task in tasks
    }
    by_task = list(epochs.values())
    ours = [row[GUIDED] for row in by_task]
    rivals = [min(row[name] for name in RIVALS) for row in by_task]
    plain = [name for name in tasks[0].methods if not get_method(name).ablation and name != GUIDED]
    return {
        "epochs": epochs,
        "against random": statistics.median(a / row[RANDOM] for a, row in zip(ours, by_task, strict=True)),
        "against the better rival": statistics.median(a / b for a, b in zip(ours, rivals, strict=True)),
        "worst against the best other": max(
            a / min(row[name] for name in plain) for a, row in zip(ours, by_task, strict=True)
        ),
        "wrong priors, worst": {name: max(row[name] / row[BASELINE] for row in by_task) for name in WRONG},
        "speed-up": {name: _speed_ups(tasks, name, accuracy_estimate) for name in (RANDOM, *RIVALS, BASELINE)},
    }


def _median(task: TaskResult, method: str, accuracy_estimate: str) -> float:
    """Returns the median epochs to come within half a point of the best; the horizon where half never did."""
    return min(bootstrap_median(task.methods[method].epochs_to_near_best(accuracy_estimate)).value, float(task.horizon))


def _speed_ups(tasks: Sequence[TaskResult], rival: str, accuracy_estimate: str) -> dict[str, float]:
    """Returns, by task, how many times fewer epochs the guided search needs for what a rival reaches in the end.

    That is the horizon over the epoch from which on the guided search's mean regret stays at or below the rival's mean
    regret at the horizon; below 1 would be a search that does not get there, which counts as 1 / 2.
    """
    found = {}
    for task in tasks:
        ours, theirs = (task.methods[name].regret[accuracy_estimate].mean(axis=0) for name in (GUIDED, rival))
        above = np.flatnonzero(ours > theirs[-1] + 1e-9)
        epoch = int(above[-1]) + 2 if len(above) else 1
        found[task.name] = round(task.horizon / max(epoch, task.length), 2) if epoch <= task.horizon else 0.5
    return found


def stops(result: ReplayResult, catalogues: Sequence[TabularBenchmark]) -> dict[str, Any]:
    """Returns, for methods that stop trials, how many stops were false, and the epochs that they saved.

    A stop is false where the recorded run would have beaten, on validation, the best trial finished before it.
    """
    found: dict[str, Any] = {}
    for name in result.methods:
        counts = [_stops(task, name, benchmark) for task, benchmark in zip(result.tasks, catalogues, strict=True)]
        stopped, false, saved = (sum(values) for values in zip(*counts, strict=True))
        if stopped:
            interval = wilson_interval(false / stopped, stopped)
            found[name] = {
                "stopped": stopped,
                "false": false,
                "rate": false / stopped,
                "low": interval.low,
                "high": interval.high,
                "epochs_saved_a_stop": saved / stopped,
                "by_task": {task.name: [count[1], count[0]] for task, count in zip(result.tasks, counts, strict=True)},
            }
    return found


def _stops(task: TaskResult, name: str, benchmark: TabularBenchmark) -> tuple[int, int, int]:
    stopped = false = saved = 0
    for search in task.methods[name].trials:
        best = 0.0
        for trial in search:
            accuracy = benchmark.settings[trial.setting].runs[trial.run].val_accuracy
            if trial.stopped is None:
                best = max(best, accuracy)
            else:
                stopped, false, saved = stopped + 1, false + (accuracy > best), saved + task.length - trial.epochs
    return stopped, false, saved


def intervals(tables: Sequence[RecordedTable]) -> dict[str, Any]:
    """Returns how often a run's end lies in the stated 80 % interval, by task and epoch, forecast without that task.

    The references are, as in a search, good finished runs of the task: three of its best quarter, drawn for each run.
    """
    rows: dict[str, Any] = {}
    for table in tables:
        learned = TransferredPriors(leave_dataset_out(tables, table))
        assert learned.forecaster is not None
        curves = table_curves(table, learned.models)
        order = sorted(curves, key=lambda curve: -curve.end_score)
        good, probe = order[: len(order) // 4], probe_logit_score(target_from_header(table.header))
        draws = np.random.default_rng(derive_seed(0, "references of the study"))
        hits: dict[int, list[bool]] = {epoch: [] for epoch in SCHEDULE}
        for curve in curves:
            others = [one for one in good if one is not curve]
            references = [others[i] for i in draws.choice(len(others), 3, replace=False)]
            for epoch in SCHEDULE:
                end = learned.forecaster.forecast(curve.until(epoch), references, probe)
                low, high = learned.forecaster.interval(end)
                hits[epoch].append(low <= curve.end_score <= high)
        share = [hit for values in hits.values() for hit in values]
        rows[table.header.name] = {
            "runs": len(curves),
            "covered": float(np.mean(share)),
            **{f"epoch {epoch}": float(np.mean(values)) for epoch, values in hits.items()},
        }
    rows["mean"] = {"covered": statistics.fmean(row["covered"] for row in rows.values())}
    return rows


def recommendations(tables: Sequence[RecordedTable], space: Space) -> dict[str, Any]:
    """Returns the rank of the first recommendation among the recorded settings of each left-out task."""
    rows = {}
    for table in tables:
        benchmark = TabularBenchmark(table, space)
        truth = estimate_ground_truth(benchmark)
        settings = [one.settings for one in benchmark.settings]
        surrogate = TransferredPriors(leave_dataset_out(tables, table)).surrogate(
            target_from_header(table.header), space
        )
        fixed = [one for _, one in baseline_recipes(benchmark.length)]
        index = settings.index(surrogate.recommend(settings, without=fixed))
        best = best_of_random(benchmark, truth)
        mine = float(truth.smoothed[index])
        rows[table.header.name] = {
            "rank": int((truth.smoothed > mine).sum()) + 1,
            "of": len(settings),
            "regret": truth.best - mine,
            "regret of the best of ten": truth.best - float(np.mean(best)),
            "chance to beat it": float(np.mean(mine > best) + 0.5 * np.mean(mine == best)),
            "beats it": mine > float(np.mean(best)),
        }
    return rows


def best_of_random(benchmark: TabularBenchmark, truth: GroundTruth, draws: int = 4000) -> np.ndarray[Any, Any]:
    """Returns what the best on validation of ten random settings is worth, once for each draw."""
    validation = np.array([np.mean([run.val_accuracy for run in one.runs]) for one in benchmark.settings])
    random = np.random.default_rng(0)
    found = [random.choice(len(validation), RANDOM_TRIES, replace=False) for _ in range(draws)]
    return np.array([truth.smoothed[ten[np.argmax(validation[ten])]] for ten in found])


def costs(tables: Sequence[RecordedTable], space: Space) -> dict[str, float]:
    """Returns medians of what decisions take, in milliseconds, over one guided search on the first table."""
    table = tables[0]
    experience = leave_dataset_out(tables, table)
    started = time.perf_counter()
    learned = TransferredPriors(experience)
    assert learned.forecaster is not None
    taught = time.perf_counter() - started
    times: dict[str, list[float]] = {"decide": [], "choose": []}
    plain = {"decide": FitPruner.decide, "choose": BayesianSampler.choose}

    def timed(name: str) -> Any:
        def call(self: Any, *arguments: Any) -> Any:
            begun = time.perf_counter()
            try:
                return plain[name](self, *arguments)
            finally:
                times[name].append(time.perf_counter() - begun)

        return call

    setattr(FitPruner, "decide", timed("decide"))  # noqa: B010
    setattr(BayesianSampler, "choose", timed("choose"))  # noqa: B010
    try:
        replay_search(TabularBenchmark(table, space), get_method(GUIDED), experience=experience, budget=60)
    finally:
        setattr(FitPruner, "decide", plain["decide"])  # noqa: B010
        setattr(BayesianSampler, "choose", plain["choose"])  # noqa: B010
    return {
        "pruning decision, median ms": 1000 * statistics.median(times["decide"]),
        "pruning decision, 99th percentile ms": 1000 * float(np.quantile(times["decide"], 0.99)),
        "proposal from 100 candidates, median ms": 1000 * statistics.median(times["choose"]),
        "learning from the tables, s": taught,
    }


def write(found: dict[str, Any], result: ReplayResult) -> str:
    """Returns the report."""
    lines = [
        "# Search efficiency on recorded curves",
        "",
        f"{found['seeds']} searches of each method on each task, leave-one-task-out; {found['minutes']} minutes on "
        f"{found['machine']}. Budget: 60 full trials' worth of epochs. `studies/search_efficiency.py` says what is "
        "measured.",
        "",
        "## Goals",
        "",
        *_goal_table(found),
        "",
        "## Epochs to come within .5 points of the best (median over seeds; the horizon where half never did)",
        "",
        *_epoch_table(found, result, "test", "The incumbent's own test accuracy judges"),
        "",
        *_epoch_table(found, result, "smoothed", "The incumbent's smoothed accuracy judges"),
        "",
        "## Mean regret over the search (share of the range from the median setting to the best), and mean rank",
        "",
        *_overall_table(result),
        "",
        "## Speed-up: epochs of the rival's whole search over those after which the guided search is and stays as good",
        "",
        *_speed_table(found),
        "",
        "## Stops",
        "",
        "| method | stopped | false | rate | 95 % interval | epochs saved a stop |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {row['stopped']} | {row['false']} | {row['rate']:.1%} | {row['low']:.1%} to {row['high']:.1%} "
            f"| {row['epochs_saved_a_stop']:.1f} |"
            for name, row in found["stops"].items()
        ),
        "",
        "## Stated 80 % intervals on tasks that the forecaster has not seen",
        "",
        "| task | runs | covered | " + " | ".join(f"epoch {epoch}" for epoch in SCHEDULE) + " |",
        "|---|---|---|" + "---|" * len(SCHEDULE),
        *(
            f"| {name} | {row['runs']} | {row['covered']:.2f} | "
            + " | ".join(f"{row[f'epoch {epoch}']:.2f}" for epoch in SCHEDULE)
            + " |"
            for name, row in found["intervals"].items()
            if name != "mean"
        ),
        f"| mean | | {found['intervals']['mean']['covered']:.2f} |" + " |" * len(SCHEDULE),
        "",
        "## First recommendation, before any training",
        "",
        "| task | rank | regret, points | best of ten random: regret, points | chance to beat it |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {row['rank']} of {row['of']} | {100 * row['regret']:.1f} | "
            f"{100 * row['regret of the best of ten']:.1f} | {row['chance to beat it']:.2f} |"
            for name, row in found["recommendation"].items()
        ),
        "",
        "## Cost",
        "",
        *(f"- {name}: {value:.2f}" for name, value in found["cost"].items()),
        "",
    ]
    return "\n".join(lines)


def _goal_table(found: dict[str, Any]) -> list[str]:
    stop = found["stops"][GUIDED]
    beats = sum(row["beats it"] for row in found["recommendation"].values())
    rows = [
        (
            f"{what} ({accuracy_estimate})",
            goal,
            " / ".join(f"{value:.2f}" for value in values),
        )
        for accuracy_estimate, part in found["goals"].items()
        for what, goal, values in (
            ("epochs against random, median over tasks", "<= 0.10", [part["against random"]]),
            ("epochs against the better of TPE + Hyperband and ASHA", "<= 0.33", [part["against the better rival"]]),
            ("worst task against the best other method", "<= 1.1", [part["worst against the best other"]]),
            (
                f"wrong priors against {BASELINE}, worst task: {', '.join(WRONG)}",
                "<= 1.3",
                list(part["wrong priors, worst"].values()),
            ),
        )
    ]
    rows += [
        ("false stops", "<= 5 %", f"{stop['rate']:.1%} [{stop['low']:.1%}, {stop['high']:.1%}]"),
        ("80 % intervals cover, mean over tasks", "75 to 85 %", f"{found['intervals']['mean']['covered']:.0%}"),
        ("first recommendation beats the best of 10 random", "4 of 5", f"{beats} of {len(found['recommendation'])}"),
        ("pruning decision", "< 50 ms", f"{found['cost']['pruning decision, median ms']:.1f} ms"),
    ]
    return ["| what | goal | measured |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]


def _epoch_table(found: dict[str, Any], result: ReplayResult, accuracy_estimate: str, title: str) -> list[str]:
    epochs = found["goals"][accuracy_estimate]["epochs"]
    names = list(epochs)
    return [
        f"{title}.",
        "",
        "| method | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
        *(
            f"| {method} | "
            + " | ".join(
                f"{epochs[name][method]:.0f}" if epochs[name][method] < epochs[name]["horizon"] else "never"
                for name in names
            )
            + " |"
            for method in result.methods
        ),
    ]


def _overall_table(result: ReplayResult) -> list[str]:
    return [
        "| method | mean regret | 95 % interval | mean rank | p against random |",
        "|---|---|---|---|---|",
        *(
            f"| {row['method']} | {row['normalised_regret']:.3f} | {row['normalised_regret_low']:.3f} to "
            f"{row['normalised_regret_high']:.3f} | {row['rank']:.1f} | {_p(row['p_regret'])} |"
            for row in result.overall_rows()
        ),
    ]


def _speed_table(found: dict[str, Any]) -> list[str]:
    rows = found["goals"]["smoothed"]["speed-up"]
    names = list(next(iter(rows.values())))
    return [
        "By the smoothed judge.",
        "",
        "| against | " + " | ".join(names) + " | median |",
        "|---|" + "---|" * (len(names) + 1),
        *(
            f"| {rival} | "
            + " | ".join("never" if row[name] < 1 else f"{row[name]:.1f}" for name in names)
            + f" | {statistics.median(row.values()):.1f} |"
            for rival, row in rows.items()
        ),
    ]


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}" if math.isfinite(value) else "-"


if __name__ == "__main__":
    main()
