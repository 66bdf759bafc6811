"""Study of the savings by priors and pruning.

Replays every search method on the recorded tasks, leaving the evaluated task out of the experience (`nbt replay`), and
compares the results with the goals of the project. Besides the default search, "guided", it runs ablations (priors
only, pruner only, recorded tasks only, rules only), two searches with wrong priors (the profile of the least similar
task; the prior mean negated), and a portfolio without fit measures. It also measures

- how often the pruner stopped a trial whose recorded run would have beaten the incumbent,
- the coverage of the forecaster's 80 % intervals on curves of unseen tasks,
- the rank of the first recommendation, before any training, compared with the best of ten random settings,
- the time of a proposal and of a pruning decision.

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
from nbt.tuning.surrogate.task_similarity import target_from_header
from nbt.tuning.transferred_priors import TransferredPriors

HERE = Path(__file__).parent
OUT = HERE / "results" / "search_efficiency"
GUIDED, RANDOM = "guided", "random"
COMPETITORS = ("tpe+hyperband", "asha")
BASELINE = "tpe+asha"
WRONG = ("wrong profile", "inverted")
RANDOM_SETTINGS = 10
SCHEDULE = (2, 3, 4, 6, 8, 10)


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="Searches of each method on each task.")
    parser.add_argument("--workers", type=int, default=2, help="Number of processes.")
    recorded = sorted((HERE / "recorded").glob("*.parquet"))
    parser.add_argument("--tables", type=Path, nargs="*", default=recorded, help="Recorded tables (Parquet).")
    parser.add_argument("--out", type=Path, default=OUT, help="Folder of the results.")
    options = parser.parse_args()
    tables = [RecordedTable.load(path) for path in options.tables]
    space = Space.load("non_binary")
    measures = {
        "recommendation": recommendations(tables, space),
        "intervals": intervals(tables),
        "cost": costs(tables, space),
    }
    print(json.dumps(measures, indent=1), flush=True)
    started = time.perf_counter()
    result = replay(
        tables,
        space=space,
        methods=method_names(),
        seeds=options.seeds,
        workers=options.workers,
        on_progress=lambda done, total: print(f"\r{done}/{total}", end="", flush=True),
    )
    minutes = (time.perf_counter() - started) / 60
    write_benchmark(without_ablations(result), options.out)
    report = {
        "machine": machine(),
        "seeds": options.seeds,
        "minutes": round(minutes, 1),
        "goals": goals(result),
        "stops": stops(result, [TabularBenchmark(table, space) for table in tables]),
        **measures,
    }
    (options.out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (options.out / "report.md").write_text(format_report(report, result), encoding="utf-8")
    print(f"\n{options.out / 'report.md'}")


def without_ablations(result: ReplayResult) -> ReplayResult:
    """Returns the result of the methods that `nbt replay` compares by default, to keep the figure readable."""
    names = method_names(ablations=False)
    tasks = [replace(task, methods={name: task.methods[name] for name in names}) for task in result.tasks]
    return replace(result, tasks=tasks, methods={name: result.methods[name] for name in names})


def goals(result: ReplayResult) -> dict[str, Any]:
    """Returns the epochs to come near the best, by task and method, and the ratios of the goals, for both estimates."""
    return {accuracy_estimate: _goals(result.tasks, accuracy_estimate) for accuracy_estimate in ("test", "smoothed")}


def _goals(tasks: Sequence[TaskResult], accuracy_estimate: str) -> dict[str, Any]:
    epochs = {
        task.name: {name: _median(task, name, accuracy_estimate) for name in task.methods}
        | {"horizon": float(task.horizon)}
        for task in tasks
    }
    by_task = list(epochs.values())
    guided = [row[GUIDED] for row in by_task]
    competitors = [min(row[name] for name in COMPETITORS) for row in by_task]
    other_methods = [name for name in tasks[0].methods if not get_method(name).ablation and name != GUIDED]
    return {
        "epochs": epochs,
        "against random": statistics.median(a / row[RANDOM] for a, row in zip(guided, by_task, strict=True)),
        "against the better rival": statistics.median(a / b for a, b in zip(guided, competitors, strict=True)),
        "worst against the best other": max(
            a / min(row[name] for name in other_methods) for a, row in zip(guided, by_task, strict=True)
        ),
        "wrong priors, worst": {name: max(row[name] / row[BASELINE] for row in by_task) for name in WRONG},
        "speed-up": {name: _speed_ups(tasks, name, accuracy_estimate) for name in (RANDOM, *COMPETITORS, BASELINE)},
    }


def _median(task: TaskResult, method: str, accuracy_estimate: str) -> float:
    """Returns the median epochs to come within half a point of the best; the horizon if half of the searches do not."""
    return min(bootstrap_median(task.methods[method].epochs_to_near_best(accuracy_estimate)).value, float(task.horizon))


def _speed_ups(tasks: Sequence[TaskResult], competitor: str, accuracy_estimate: str) -> dict[str, float]:
    """Returns, by task, the speed-up of the guided search over another method.

    The speed-up is the horizon divided by the epoch after which the guided search's mean regret stays at or below that
    of the other method at the horizon. A guided search that does not reach it counts as 0.5.
    """
    speed_ups = {}
    for task in tasks:
        guided_regret, competitor_regret = (
            task.methods[name].regret[accuracy_estimate].mean(axis=0) for name in (GUIDED, competitor)
        )
        above = np.flatnonzero(guided_regret > competitor_regret[-1] + 1e-9)
        epoch = int(above[-1]) + 2 if len(above) else 1
        speed_ups[task.name] = round(task.horizon / max(epoch, task.length), 2) if epoch <= task.horizon else 0.5
    return speed_ups


def stops(result: ReplayResult, benchmarks: Sequence[TabularBenchmark]) -> dict[str, Any]:
    """Returns, for each method with stopped trials, the number of false stops and the epochs saved.

    A stop is false if the recorded run would have had a higher validation accuracy than all trials finished before.
    """
    stops_by_method: dict[str, Any] = {}
    for name in result.methods:
        counts = [_stops(task, name, benchmark) for task, benchmark in zip(result.tasks, benchmarks, strict=True)]
        stopped, false, saved = (sum(values) for values in zip(*counts, strict=True))
        if stopped:
            interval = wilson_interval(false / stopped, stopped)
            stops_by_method[name] = {
                "stopped": stopped,
                "false": false,
                "rate": false / stopped,
                "low": interval.low,
                "high": interval.high,
                "epochs_saved_a_stop": saved / stopped,
                "by_task": {task.name: [count[1], count[0]] for task, count in zip(result.tasks, counts, strict=True)},
            }
    return stops_by_method


def _stops(task: TaskResult, name: str, benchmark: TabularBenchmark) -> tuple[int, int, int]:
    """Returns the numbers of stopped trials, of false stops and of epochs saved, over all searches."""
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
    """Returns the coverage of the 80 % intervals, by task and epoch, by a forecaster trained without that task.

    The references of each run are three random runs of the best quarter of the task, similar to those of a search.
    """
    rows: dict[str, Any] = {}
    for table in tables:
        transferred = TransferredPriors(leave_dataset_out(tables, table))
        assert transferred.forecaster is not None
        curves = table_curves(table, transferred.experience)
        order = sorted(curves, key=lambda curve: -curve.end_score)
        best_quarter, probe = order[: len(order) // 4], probe_logit_score(target_from_header(table.header))
        rng = np.random.default_rng(derive_seed(0, "references of the study"))
        hits: dict[int, list[bool]] = {epoch: [] for epoch in SCHEDULE}
        for curve in curves:
            others = [other for other in best_quarter if other is not curve]
            references = [others[i] for i in rng.choice(len(others), 3, replace=False)]
            for epoch in SCHEDULE:
                end = transferred.forecaster.forecast(curve.until(epoch), references, probe)
                low, high = transferred.forecaster.interval(end)
                hits[epoch].append(low <= curve.end_score <= high)
        all_hits = [hit for values in hits.values() for hit in values]
        rows[table.header.name] = {
            "runs": len(curves),
            "covered": float(np.mean(all_hits)),
            **{f"epoch {epoch}": float(np.mean(values)) for epoch, values in hits.items()},
        }
    rows["mean"] = {"covered": statistics.fmean(row["covered"] for row in rows.values())}
    return rows


def recommendations(tables: Sequence[RecordedTable], space: Space) -> dict[str, Any]:
    """Returns the rank of the first recommendation among the recorded settings of each held-out task."""
    rows = {}
    for table in tables:
        benchmark = TabularBenchmark(table, space)
        truth = estimate_ground_truth(benchmark)
        settings = [recorded.settings for recorded in benchmark.settings]
        surrogate = TransferredPriors(leave_dataset_out(tables, table)).surrogate(
            target_from_header(table.header), space
        )
        baselines = [baseline for _, baseline in baseline_recipes(benchmark.length)]
        index = settings.index(surrogate.recommend(settings, without=baselines))
        best = best_of_random(benchmark, truth)
        accuracy = float(truth.smoothed[index])
        rows[table.header.name] = {
            "rank": int((truth.smoothed > accuracy).sum()) + 1,
            "of": len(settings),
            "regret": truth.best - accuracy,
            "regret of the best of ten": truth.best - float(np.mean(best)),
            "chance to beat it": float(np.mean(accuracy > best) + 0.5 * np.mean(accuracy == best)),
            "beats it": accuracy > float(np.mean(best)),
        }
    return rows


def best_of_random(benchmark: TabularBenchmark, truth: GroundTruth, samples: int = 4000) -> np.ndarray[Any, Any]:
    """Returns the denoised test accuracy of the best on validation of ten random settings, by sample, (samples,)."""
    validation = np.array([np.mean([run.val_accuracy for run in recorded.runs]) for recorded in benchmark.settings])
    rng = np.random.default_rng(0)
    drawn = [rng.choice(len(validation), RANDOM_SETTINGS, replace=False) for _ in range(samples)]
    return np.array([truth.smoothed[indices[np.argmax(validation[indices])]] for indices in drawn])


def costs(tables: Sequence[RecordedTable], space: Space) -> dict[str, float]:
    """Returns the times of pruning decisions and proposals in one guided search on the first table."""
    table = tables[0]
    experience = leave_dataset_out(tables, table)
    started = time.perf_counter()
    transferred = TransferredPriors(experience)
    assert transferred.forecaster is not None
    training_seconds = time.perf_counter() - started
    times: dict[str, list[float]] = {"decide": [], "choose": []}
    originals: dict[str, Any] = {"decide": FitPruner.decide, "choose": BayesianSampler.choose}

    def timed(name: str) -> Any:
        def call(self: Any, *arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return originals[name](self, *arguments)
            finally:
                times[name].append(time.perf_counter() - start)

        return call

    setattr(FitPruner, "decide", timed("decide"))  # noqa: B010
    setattr(BayesianSampler, "choose", timed("choose"))  # noqa: B010
    try:
        replay_search(TabularBenchmark(table, space), get_method(GUIDED), experience=experience, budget=60)
    finally:
        setattr(FitPruner, "decide", originals["decide"])  # noqa: B010
        setattr(BayesianSampler, "choose", originals["choose"])  # noqa: B010
    return {
        "pruning decision, median ms": 1000 * statistics.median(times["decide"]),
        "pruning decision, 99th percentile ms": 1000 * float(np.quantile(times["decide"], 0.99)),
        "proposal from 100 candidates, median ms": 1000 * statistics.median(times["choose"]),
        "learning from the tables, s": training_seconds,
    }


def format_report(report: dict[str, Any], result: ReplayResult) -> str:
    """Returns the report in Markdown."""
    lines = [
        "# Search efficiency on recorded curves",
        "",
        f"{report['seeds']} searches of each method on each task, without experience from that task; "
        f"{report['minutes']} minutes on {report['machine']}. The budget of a search is the epochs of 60 full trials. "
        "See `studies/search_efficiency.py` for the definitions.",
        "",
        "## Goals",
        "",
        *_goal_table(report),
        "",
        "## Epochs until a search is within .5 points of the best setting (median over seeds)",
        "",
        *_epoch_table(report, result, "test", "By the test accuracy of the incumbent"),
        "",
        *_epoch_table(report, result, "smoothed", "By the denoised test accuracy of the incumbent"),
        "",
        "## Mean regret over the search (1 is the regret of the median setting) and mean rank",
        "",
        *_overall_table(result),
        "",
        "## Speed-up of the guided search: epochs of another method's search, divided by those until it stays as good",
        "",
        *_speed_table(report),
        "",
        "## Stops",
        "",
        "| method | stopped | false | rate | 95 % interval | epochs saved per stop |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {row['stopped']} | {row['false']} | {row['rate']:.1%} | {row['low']:.1%} to {row['high']:.1%} "
            f"| {row['epochs_saved_a_stop']:.1f} |"
            for name, row in report["stops"].items()
        ),
        "",
        "## Coverage of the 80 % intervals on tasks that the forecaster has not seen",
        "",
        "| task | runs | covered | " + " | ".join(f"epoch {epoch}" for epoch in SCHEDULE) + " |",
        "|---|---|---|" + "---|" * len(SCHEDULE),
        *(
            f"| {name} | {row['runs']} | {row['covered']:.2f} | "
            + " | ".join(f"{row[f'epoch {epoch}']:.2f}" for epoch in SCHEDULE)
            + " |"
            for name, row in report["intervals"].items()
            if name != "mean"
        ),
        f"| mean | | {report['intervals']['mean']['covered']:.2f} |" + " |" * len(SCHEDULE),
        "",
        "## First recommendation, before any training",
        "",
        "| task | rank | regret, points | best of ten random: regret, points | chance to beat it |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {row['rank']} of {row['of']} | {100 * row['regret']:.1f} | "
            f"{100 * row['regret of the best of ten']:.1f} | {row['chance to beat it']:.2f} |"
            for name, row in report["recommendation"].items()
        ),
        "",
        "## Cost",
        "",
        *(f"- {name}: {value:.2f}" for name, value in report["cost"].items()),
        "",
    ]
    return "\n".join(lines)


def _goal_table(report: dict[str, Any]) -> list[str]:
    stop = report["stops"][GUIDED]
    beats = sum(row["beats it"] for row in report["recommendation"].values())
    rows = [
        (
            f"{measure} ({accuracy_estimate})",
            goal,
            " / ".join(f"{value:.2f}" for value in values),
        )
        for accuracy_estimate, part in report["goals"].items()
        for measure, goal, values in (
            ("epochs relative to random, median over tasks", "<= 0.10", [part["against random"]]),
            (
                "epochs relative to the better of TPE + Hyperband and ASHA",
                "<= 0.33",
                [part["against the better rival"]],
            ),
            ("epochs relative to the best other method, worst task", "<= 1.1", [part["worst against the best other"]]),
            (
                f"epochs with wrong priors relative to {BASELINE}, worst task: {', '.join(WRONG)}",
                "<= 1.3",
                list(part["wrong priors, worst"].values()),
            ),
        )
    ]
    rows += [
        ("false stops", "<= 5 %", f"{stop['rate']:.1%} [{stop['low']:.1%}, {stop['high']:.1%}]"),
        (
            "coverage of the 80 % intervals, mean over tasks",
            "75 to 85 %",
            f"{report['intervals']['mean']['covered']:.0%}",
        ),
        ("first recommendation beats the best of 10 random", "4 of 5", f"{beats} of {len(report['recommendation'])}"),
        ("pruning decision", "< 50 ms", f"{report['cost']['pruning decision, median ms']:.1f} ms"),
    ]
    return ["| measure | goal | measured |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]


def _epoch_table(report: dict[str, Any], result: ReplayResult, accuracy_estimate: str, title: str) -> list[str]:
    epochs = report["goals"][accuracy_estimate]["epochs"]
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


def _speed_table(report: dict[str, Any]) -> list[str]:
    rows = report["goals"]["smoothed"]["speed-up"]
    names = list(next(iter(rows.values())))
    return [
        "By the denoised test accuracy.",
        "",
        "| against | " + " | ".join(names) + " | median |",
        "|---|" + "---|" * (len(names) + 1),
        *(
            f"| {method} | "
            + " | ".join("never" if row[name] < 1 else f"{row[name]:.1f}" for name in names)
            + f" | {statistics.median(row.values()):.1f} |"
            for method, row in rows.items()
        ),
    ]


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}" if math.isfinite(value) else "-"


if __name__ == "__main__":
    main()
