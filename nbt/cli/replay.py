"""`nbt replay`: search methods compared on recorded learning curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from nbt.cli.display.output import Output, percent
from nbt.cli.options.common import AT_LEAST_ONE, Command
from nbt.paths import check_writable_folder

if TYPE_CHECKING:
    from nbt.tuning.benchmark.results import ReplayResult

_EPOCHS_COLUMN = "epochs to .5 points"
LEGEND = (
    "Searches of each method on each task: {seeds}; intervals: 95 %, bootstrap over them. Epochs until the test "
    "accuracy of the incumbent is within .5 points of the best (for good: until it stays there; smoothed: until its "
    "smoothed accuracy is); never: how many searches did not get there. In ratio and p (against {reference}) and "
    "worst ratio (against the best other method, on the worst task) these count as the whole horizon."
)


@click.command(cls=Command)
@click.argument("tables", metavar="TABLE.parquet...", nargs=-1, required=True)
@click.option("--seeds", metavar="N", type=AT_LEAST_ONE, default=20, show_default=True, help="Searches of each method.")
@click.option("--methods", metavar="A,B,...", default="", help="All but the ablations when not given.")
@click.option(
    "--budget", metavar="N", type=AT_LEAST_ONE, default=60, show_default=True, help="Full trials' worth of epochs."
)
@click.option("--space", metavar="NAME|FILE", default="non_binary", show_default=True, help="See nbt spaces.")
@click.option("--workers", metavar="N", type=AT_LEAST_ONE, default=1, show_default=True, help="Processes.")
@click.option("--out", "folder", metavar="DIR", help="Write tables (CSV) and figure there.")
def command(out: Output, tables: Sequence[str], methods: str, folder: str | None, **options: Any) -> None:
    """Compare search methods on curves that nbt record wrote.

    Methods run in the controller of nbt search, on recorded instead of new training, and know of a task what their own
    search has paid for, and tables of other datasets. They see validation only; test accuracy judges them.
    """
    if folder is not None:
        check_writable_folder("--out", folder)
    from nbt.cli.display.progress import Progress

    with Progress(out) as progress:
        from nbt import api

        result = api.replay(
            tables,
            methods=tuple(name.strip() for name in methods.split(",") if name.strip()),
            out=folder,
            on_progress=lambda done, total: progress.update("searching recorded curves", done, total),
            **options,
        )
    if out.json:
        out.print_json({**result.to_json(), "folder": folder})
    else:
        print_result(out, result, folder)


def print_result(out: Output, result: ReplayResult, folder: str | None) -> None:
    """Writes what was found as tables for people."""
    none, sections = "nothing was replayed", (task_text, summary_text, overall_text)
    tables = result.task_rows(), result.summary_rows(), result.overall_rows()
    for rows, text in zip(tables, sections, strict=True):
        shown = [text(row) for row in rows]
        out.print_rows(shown, right=set(shown[0]) - {"task", "method"} if shown else (), none=none)
        out.print("")
    out.print(LEGEND.format(seeds=result.seeds, reference=result.reference))
    if folder is not None:
        out.print(f"tables and figure: {folder}")


def task_text(row: Mapping[str, Any]) -> dict[str, str]:
    """Returns a task's row as text."""
    return {
        "task": row["task"],
        "settings": f"{row['settings']}",
        "horizon": f"{row['horizon']}",
        "best": percent(row["best"]),
        "luckiest": percent(row["luckiest"]),
        "median": percent(row["median"]),
        "noise of a run": "-" if row["run_noise"] is None else f"±{100 * row['run_noise']:.1f} points",
        "of the images": f"±{100 * row['image_noise']:.1f} points",
        "settings within .5": f"{row['within_half_a_point']}",
    }


def summary_text(row: Mapping[str, Any]) -> dict[str, str]:
    """Returns a method's row on a task as text."""
    return {
        "task": row["task"],
        "method": row["method"],
        _EPOCHS_COLUMN: _interval(row, "epochs", _epochs),
        "never": f"{row['never']}",
        "for good": _epochs(row["epochs_stay"]),
        "smoothed": _epochs(row["epochs_smoothed"]),
        "regret at the end": _interval(row, "regret", lambda value: f"{100 * value:.2f}"),
        "trials": f"{row['trials']:.0f}",
        "stopped": f"{row['stopped']:.0f}",
        "distance": "-" if row["distance"] is None else f"{row['distance']:.2f}",
    }


def overall_text(row: Mapping[str, Any]) -> dict[str, str]:
    """Returns a method's row over all tasks as text."""
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
