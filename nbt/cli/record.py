"""`nbt record`: full learning curves of random settings, for replay and for the priors of later searches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from nbt.cli.checks import check_task
from nbt.cli.options import AT_LEAST_ONE, SEED, Command, task_options
from nbt.cli.output import Output, percent
from nbt.errors import UsageError

if TYPE_CHECKING:
    from nbt.search.recorded import RecordedRun, RecordedTable


@click.command(cls=Command)
@task_options
@click.option("--trials", metavar="N", type=AT_LEAST_ONE, required=True, help="Settings; every tenth runs twice.")
@click.option("--out", "table", metavar="TABLE.parquet", required=True, help="Where the curves go.")
@click.option("--space", metavar="NAME|FILE", default="non_binary", show_default=True, help="See nbt spaces.")
@click.option("--epochs", metavar="N", type=AT_LEAST_ONE, default=12, show_default=True, help="Of every run.")
@click.option("--workers", metavar="N", type=AT_LEAST_ONE, default=1, show_default=True, help="Runs at a time.")
@click.option("--seed", metavar="N", type=SEED, default=0, show_default=True, help="Of split, settings and runs.")
def command(out: Output, dataset: str, table: str, **options: Any) -> None:
    """Record learning curves for replay; the same command resumes.

    The anchors and random settings of the space train to full length. Each epoch is also evaluated on test images,
    which nothing but the benchmark reads: use nbt replay on the table.
    """
    check_options({"dataset": dataset, **options}, table)
    from nbt.cli.progress import Progress

    kept = 0

    with Progress(out) as progress:

        def count(run: RecordedRun, done: int, total: int) -> None:
            nonlocal kept
            kept = done
            progress.stage(f"recording {table}", done, total)

        try:
            from nbt import experience

            recorded = experience.record(dataset, **options, out=table, on_run=count, progress=progress.stage)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted: {kept} runs kept; the same command continues") from None
    facts = summary(recorded)
    if out.json:
        out.print_json({"table": table, **facts})
    else:
        out.print(
            f"{table}: {facts['settings']} settings, {facts['runs']} runs of {facts['epochs']} epochs, "
            f"{facts['diverged']} diverged; best validation accuracy {percent(facts['best'])}"
        )


def summary(table: RecordedTable) -> dict[str, Any]:
    """Returns what a recording holds; accuracies are 0 ... 1."""
    runs = table.runs
    best = max((run.val_accuracy for run in runs), default=math.nan)
    return {
        "settings": len({run.setting for run in runs}),
        "runs": len(runs),
        "epochs": table.header.epochs,
        "diverged": sum(run.diverged for run in runs),
        "best": None if math.isnan(best) else best,
    }


def check_options(options: dict[str, Any], table: str) -> None:
    """Checks what can be checked without torch.

    Raises:
        UsageError: Something is wrong.
    """
    from nbt.search.space import Space

    if not table.endswith(".parquet"):
        raise UsageError(f"--out {table}: the name of a recorded table ends in .parquet")
    check_task(options)
    Space.load(options["space"])
