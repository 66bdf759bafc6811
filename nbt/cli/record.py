"""`nbt record`: records learning curves of random settings or of finished studies, for replay and later searches."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from nbt.cli.display.output import Output, percent
from nbt.cli.options.checks import TASK_OPTIONS, check_study, check_task
from nbt.cli.options.common import (
    AT_LEAST_ONE,
    Command,
    config_option,
    given_parameters,
    task_options,
    workers_option,
)
from nbt.errors import UsageError
from nbt.paths import check_outside, check_writable_file
from nbt.report.formatting import pluralise

if TYPE_CHECKING:
    from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable

_FROM_STUDIES_OPTIONS = ("storage",)
_TRAINING_OPTIONS = (*TASK_OPTIONS, "trials", "epochs", "design", "workers")


@click.command(cls=Command)
@click.argument("studies", metavar="[STUDY]...", nargs=-1)
@partial(task_options, dataset={"required": False})
@click.option(
    "--trials",
    metavar="N",
    type=AT_LEAST_ONE,
    show_default="required without --from-studies",
    help="Number of settings; every tenth is trained with two seeds.",
)
@click.option(
    "--out",
    "table",
    metavar="TABLE.parquet",
    required=True,
    help="File of the recorded table; with --from-studies also a folder.",
)
@config_option("space")
@click.option("--epochs", metavar="N", type=AT_LEAST_ONE, default=12, show_default=True, help="Epochs of every run.")
@click.option(
    "--design",
    type=click.Choice(["random", "informed"]),
    default="random",
    show_default=True,
    help="Settings: random draws from the whole space, or variations of the default recipe, of good settings of other "
    "tables and of this one, with three lengths.",
)
@workers_option
@config_option("seed", help="Seed of split, settings and runs.")
@click.option("--from-studies", is_flag=True, help="Record the complete trials of studies instead of training.")
@config_option("storage")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    out: Output,
    studies: tuple[str, ...],
    table: str,
    space: str,
    from_studies: bool,
    storage: str | None,
    **options: Any,
) -> None:
    """Record learning curves; rerun to resume.

    With --dataset and --trials, the command trains the baseline recipes and random settings of the space to full
    length. Every epoch is also evaluated on test images, which only the benchmark (nbt replay) reads.

    With --from-studies, the command converts the complete trials of each STUDY (default: all studies) into recorded
    tables. --out may then be a folder, which receives one table per task; new runs are added to existing tables. nbt
    search reads the tables with --experience.
    """
    _check_option_combination(ctx, from_studies, studies)
    if from_studies:
        check_studies(studies, storage, space, table)
        _record_studies(out, studies, table, space, storage)
    else:
        check_options({**options, "space": space}, table)
        _record(out, table, {**options, "space": space})


def _check_option_combination(ctx: click.Context, from_studies: bool, studies: tuple[str, ...]) -> None:
    """Rejects options that exclude each other, and requires those that training needs.

    Raises:
        click.UsageError: An option is missing, or does not apply with or without `--from-studies`.
    """
    inapplicable = _TRAINING_OPTIONS if from_studies else _FROM_STUDIES_OPTIONS
    given = given_parameters(ctx)
    rejected = [param for name, param in given.items() if name in inapplicable]
    names = ", ".join(param.opts[0] for param in rejected)
    if from_studies and rejected:
        raise click.UsageError(f"--from-studies trains nothing and takes the task from the studies: leave out {names}")
    if not from_studies and (rejected or studies):
        raise click.UsageError(f"{names or f'study {studies[0]}'} needs --from-studies")
    for param in ctx.command.params:
        if not from_studies and param.name in ("dataset", "trials") and param.name not in given:
            raise click.MissingParameter(ctx=ctx, param=param)


def _record(out: Output, table: str, options: dict[str, Any]) -> None:
    from nbt.display.progress import Progress

    stored = 0

    with Progress(out.progress_mode) as progress:

        def count(run: RecordedRun, done: int, total: int) -> None:
            nonlocal stored
            stored = done
            progress.update(f"recording {table}", done, total)

        try:
            from nbt import api

            recorded = api.record(**options, out=table, on_run=count, progress=progress.update)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted: {stored} runs stored; to continue, run the same command") from None
    if out.json:
        out.print_json({"table": table, **summary(recorded)})
    else:
        out.print(summary_text(table, recorded))


def _record_studies(out: Output, studies: tuple[str, ...], table: str, space: str, storage: str | None) -> None:
    from nbt import api

    result = api.record_studies(studies, out=table, storage=storage, space=space)
    if out.json:
        rows = [
            {"table": path, **summary(recorded), "studies": study_names(recorded)}
            for path, recorded in result.tables.items()
        ]
        out.print_json({"tables": rows, "left_out": result.left_out})
    else:
        for path, recorded in result.tables.items():
            out.print(f"{summary_text(str(path), recorded)}; from {', '.join(study_names(recorded))}")


def summary(table: RecordedTable) -> dict[str, Any]:
    """Returns the facts of a recorded table in JSON types; the best validation accuracy is 0 ... 1."""
    runs = table.runs
    best = max((run.val_accuracy for run in runs), default=math.nan)
    return {
        "settings": len({run.setting for run in runs}),
        "runs": len(runs),
        "epochs": table.header.epochs,
        "diverged": sum(run.diverged for run in runs),
        "best": None if math.isnan(best) else best,
    }


def summary_text(file: str, table: RecordedTable) -> str:
    """Returns the facts of a recorded table, see `summary`, as one line of text."""
    facts = summary(table)
    lengths = sorted({run.settings.epochs for run in table.runs}) or [facts["epochs"]]
    epochs = pluralise(lengths[0], "epoch") if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]} epochs"
    return (
        f"{file}: {pluralise(facts['settings'], 'setting')}, {pluralise(facts['runs'], 'run')} of {epochs}, "
        f"{facts['diverged']} diverged; best validation accuracy {percent(facts['best'])}"
    )


def study_names(table: RecordedTable) -> list[str]:
    """Returns the names of the studies that the runs of a table come from."""
    return list(dict.fromkeys(run.origin.removeprefix("study: ") for run in table.runs))


def check_options(options: dict[str, Any], table: str) -> None:
    """Checks the options of a recording that trains, without importing torch.

    Args:
        options: Values of the options of the task, and of `--space`.
        table: File of the recorded table.

    Raises:
        UsageError: A value is invalid.
    """
    from nbt.tuning.space.space import Space

    if not table.endswith(".parquet"):
        raise UsageError(f"--out {table}: the name of a recorded table ends in .parquet")
    check_writable_file("--out", table)
    check_outside("--out", table, check_task(options).source.path)
    Space.load(options["space"])


def check_studies(studies: tuple[str, ...], storage: str | None, space: str, out: str) -> None:
    """Checks the options of `--from-studies` without opening the storage.

    Args:
        studies: Names of the studies; empty for all.
        storage: URL of the storage.
        space: Name or file of the search space.
        out: File or folder of the tables.

    Raises:
        UsageError: A value is invalid.
    """
    from nbt.tuning.experience.study_tables import is_output_folder
    from nbt.tuning.space.space import Space

    for name in studies or (None,):
        check_study(name, storage)
    is_output_folder(out)
    Space.load(space)
