"""`nbt replay`: compares search methods on recorded learning curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from nbt.cli.display.output import Output, percent
from nbt.cli.options.common import AT_LEAST_ONE, Command, config_option
from nbt.data.output_place import check_outside_class_folders
from nbt.errors import UsageError
from nbt.paths import check_writable_folder

if TYPE_CHECKING:
    from nbt.tuning.benchmark.results import ReplayResult

_EPOCHS_COLUMN = "epochs to .5 points"
LEGEND = (
    "Searches per method and task: {seeds}; intervals: 95 %, bootstrap over the searches. "
    f"{_EPOCHS_COLUMN}: epochs until the test accuracy of the incumbent is within .5 points of the best; staying: "
    "until it remains there; smoothed: until its smoothed accuracy is within .5 points; never: number of searches that "
    "did not reach it. In ratio and p (against {reference}) and in worst ratio (against the best other method, on the "
    "worst task), such searches count with all epochs of their budget."
)
CURVE_LEGEND = (
    "Searches per method and task: {seeds}. Regret N: difference between the best last value of the judging curve and "
    "that of the incumbent after N full runs in epochs, where 0 is the best setting of the table and 1 the median one; "
    "cost N: after the cost of N full runs. Rank N: mean over tasks and seeds. Difference N: to {reference}, paired. "
    "Intervals: 95 %, bootstrap over the searches."
)


@click.command(cls=Command)
@click.argument("tables", metavar="TABLE.parquet...", nargs=-1, required=True)
@click.option(
    "--seeds",
    metavar="N",
    type=AT_LEAST_ONE,
    default=20,
    show_default=True,
    help="Searches per method and task, each with its own seed.",
)
@click.option(
    "--methods",
    metavar="A,B,...",
    default="",
    show_default="all but the ablations",
    help="Names of the search methods to compare.",
)
@click.option(
    "--budget",
    metavar="N",
    type=AT_LEAST_ONE,
    default=60,
    show_default=True,
    help="Training epochs per search, worth N full trials.",
)
@config_option("space")
@click.option(
    "--experience",
    metavar="shipped|DIR",
    show_default="the tables given",
    help="Recorded tables from which methods may learn: those that come with nbt, or those of a folder. Those of the "
    "evaluated dataset are left out.",
)
@click.option(
    "--metric",
    metavar="COLUMN",
    show_default="none: tables of nbt record",
    help="Curve that the methods see, for tables that nbt record did not write: numbers, texts and flags are "
    "hyperparameters, lists of numbers are curves.",
)
@click.option("--judge", metavar="COLUMN", show_default="that of --metric", help="With --metric: curve that judges.")
@click.option("--minimize", is_flag=True, help="With --metric: smaller values are better.")
@click.option("--initial", is_flag=True, help="With --metric: the first value of a curve is before training.")
@click.option("--workers", metavar="N", type=AT_LEAST_ONE, default=1, show_default=True, help="Concurrent processes.")
@click.option("--out", "folder", metavar="DIR", show_default="none", help="Folder for the tables (CSV) and the figure.")
@click.pass_context
def command(
    ctx: click.Context, /, out: Output, tables: Sequence[str], methods: str, folder: str | None, **options: Any
) -> None:
    """Compare search methods on recorded learning curves.

    Every method runs in the search controller of nbt search, with recorded curves in place of training. A method knows
    the epochs that its own search has spent and recorded tables of other datasets. It sees validation results only;
    the comparison uses the test accuracy.
    """
    names = tuple(name.strip() for name in methods.split(",") if name.strip())
    curve_options = {name: options.pop(name) for name in ("metric", "judge", "minimize", "initial")}
    if curve_options["metric"] is not None:
        _replay_curves(ctx, out, tables, names, folder, curve_options, options)
        return
    for name, value in curve_options.items():
        if value:
            raise UsageError(f"--{name} needs --metric, which names the curve that the methods see")
    if folder is not None:
        check_writable_folder("--out", folder)
        check_outside_class_folders("--out", folder)
    from nbt.display.progress import Progress

    with Progress(out.progress_mode) as progress:
        from nbt import api

        result = api.replay(
            tables,
            methods=names,
            out=folder,
            on_progress=lambda done, total: progress.update("searching recorded curves", done, total),
            **options,
        )
    if out.json:
        out.print_json({**result.to_json(), "folder": folder})
    else:
        print_result(out, result, folder)


def _replay_curves(
    ctx: click.Context,
    out: Output,
    tables: Sequence[str],
    methods: Sequence[str],
    folder: str | None,
    curve_options: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Runs the replay of generic tables and prints its result."""
    is_given = ctx.get_parameter_source("space") is not ParameterSource.DEFAULT
    if folder is not None or is_given or options["experience"] is not None:
        raise UsageError("--out, --space and --experience are for tables of nbt record: leave them out with --metric")
    from nbt import api
    from nbt.display.progress import Progress

    numbers = {name: options[name] for name in ("seeds", "budget", "workers")}
    with Progress(out.progress_mode) as progress:
        result = api.replay_curves(
            tables,
            methods=methods,
            on_progress=lambda done, total: progress.update("searching recorded curves", done, total),
            **{**curve_options, "judge": curve_options["judge"] or curve_options["metric"]},
            **numbers,
        )
    if out.json:
        out.print_json(result.to_json())
        return
    for rows in (result.summary_rows(), result.overall_rows()):
        cells = [curve_text(row, result.amounts) for row in rows]
        out.print_rows(cells, right_aligned=set(cells[0]) - {"task", "method"}, empty_text="nothing was replayed")
        out.print("")
    out.print(CURVE_LEGEND.format(seeds=result.seeds, reference=result.reference))


def curve_text(row: Mapping[str, Any], amounts: Sequence[int]) -> dict[str, str]:
    """Returns a row of `CurveReplayResult.summary_rows` or `overall_rows` as text."""
    cells = {name: row[name] for name in ("task", "method") if name in row}
    for amount in amounts:
        cells[f"regret {amount}"] = _interval(row, f"regret_{amount}", "{:.3f}".format)
        if f"rank_{amount}" in row:
            cells[f"cost {amount}"] = f"{row[f'cost_regret_{amount}']:.3f}"
            cells[f"rank {amount}"] = f"{row[f'rank_{amount}']:.1f}"
            cells[f"difference {amount}"] = _interval(row, f"difference_{amount}", "{:+.3f}".format)
    return cells


def print_result(out: Output, result: ReplayResult, folder: str | None) -> None:
    """Prints the results as tables: of the tasks, of the methods per task, and of the methods over all tasks."""
    tables = result.task_rows(), result.summary_rows(), result.overall_rows()
    for rows, format_row in zip(tables, (task_text, summary_text, overall_text), strict=True):
        cells = [format_row(row) for row in rows]
        right_aligned = set(cells[0]) - {"task", "method"} if cells else ()
        out.print_rows(cells, right_aligned=right_aligned, empty_text="nothing was replayed")
        out.print("")
    out.print(LEGEND.format(seeds=result.seeds, reference=result.reference))
    if folder is not None:
        out.print(f"tables and figure: {folder}")


def task_text(row: Mapping[str, Any]) -> dict[str, str]:
    """Returns a row of `ReplayResult.task_rows` as text."""
    return {
        "task": row["task"],
        "settings": f"{row['settings']}",
        "horizon": f"{row['horizon']}",
        "best": percent(row["best"]),
        "highest": percent(row["luckiest"]),
        "median": percent(row["median"]),
        "run noise": "-" if row["run_noise"] is None else f"±{100 * row['run_noise']:.1f} points",
        "image noise": f"±{100 * row['image_noise']:.1f} points",
        "settings within .5": f"{row['within_half_a_point']}",
    }


def summary_text(row: Mapping[str, Any]) -> dict[str, str]:
    """Returns a row of `ReplayResult.summary_rows` as text."""
    return {
        "task": row["task"],
        "method": row["method"],
        _EPOCHS_COLUMN: _interval(row, "epochs", _epochs),
        "never": f"{row['never']}",
        "staying": _epochs(row["epochs_stay"]),
        "smoothed": _epochs(row["epochs_smoothed"]),
        "final regret": _interval(row, "regret", lambda value: f"{100 * value:.2f}"),
        "trials": f"{row['trials']:.0f}",
        "stopped": f"{row['stopped']:.0f}",
        "distance": "-" if row["distance"] is None else f"{row['distance']:.2f}",
    }


def overall_text(row: Mapping[str, Any]) -> dict[str, str]:
    """Returns a row of `ReplayResult.overall_rows` as text."""
    return {
        "method": row["method"],
        _EPOCHS_COLUMN: _epochs(row["epochs"]),
        "ratio": f"{row['ratio']:.2f}",
        "worst ratio": "-" if row["worst_ratio"] is None else f"{row['worst_ratio']:.2f}",
        "p": f"{row['p_epochs']:.2g}",
        "normalised regret": _interval(row, "normalised_regret"),
        "rank": _interval(row, "rank"),
    }


def _interval(row: Mapping[str, Any], name: str, text: Callable[[float], str] = "{:.2f}".format) -> str:
    return f"{text(row[name])}  [{text(row[f'{name}_low'])}, {text(row[f'{name}_high'])}]"


def _epochs(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.0f}"
