"""`nbt search`: search, finals, retraining, test and report."""

from __future__ import annotations

from typing import Any

import click

from nbt.cli.display.output import Output
from nbt.cli.options.checks import check_experience, check_study, check_task
from nbt.cli.options.common import (
    AT_LEAST_ONE,
    SEED,
    Command,
    choice_option,
    experience_option,
    storage_option,
    task_options,
    teacher_option,
    tracking_option,
)
from nbt.errors import NbtError
from nbt.paths import check_writable_folder
from nbt.tuning.engines.factory import ENGINES
from nbt.tuning.pruners.base import PRUNER_NAMES


@click.command(cls=Command)
@task_options
@click.option(
    "--budget", required=True, metavar="N|30m|2h", help="Training epochs worth N full trials, or wall-clock time."
)
@click.option(
    "--space", metavar="NAME|FILE", default="non_binary", show_default=True, help="Search space; see nbt spaces."
)
@teacher_option
@choice_option(
    "--engine",
    ENGINES,
    default="local",
    show_default=True,
    help="Engine that runs the trials; ray copies the images to its nodes.",
)
@click.option("--workers", metavar="N", type=AT_LEAST_ONE, default=1, show_default=True, help="Concurrent trials.")
@click.option(
    "--ray-address",
    metavar="auto|HOST:PORT|ray://...",
    show_default="a new Ray on this machine",
    help="Running Ray cluster to connect to.",
)
@click.option(
    "--gpus-per-trial",
    metavar="F|auto",
    show_default="1, or an equal share if the workers outnumber the GPUs",
    help="With Ray: GPUs per trial, or the share of one; auto derives the share from measured memory.",
)
@click.option(
    "--cpus-per-trial",
    metavar="F",
    type=float,
    show_default="as many as leave room for all workers",
    help="With Ray: CPUs per trial.",
)
@click.option(
    "--epochs",
    metavar="N",
    type=AT_LEAST_ONE,
    default=12,
    show_default=True,
    help="Epochs of a full trial; of each task with --scenario.",
)
@click.option(
    "--study", metavar="NAME", show_default="derived from dataset, backbone and space", help="Name of the study."
)
@storage_option
@tracking_option
@choice_option(
    "--pruner", PRUNER_NAMES, default="fit", show_default=True, help="Rule that stops unpromising trials early."
)
@click.option(
    "--no-heuristics",
    "heuristics",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Propose settings with plain TPE, without priors and experience.",
)
@choice_option(
    "--scenario",
    ("data", "task", "class"),
    show_default="none: one task",
    help="Search for a stream of tasks; see nbt continual.",
)
@click.option(
    "--tasks",
    metavar="N",
    type=AT_LEAST_ONE,
    show_default="5, or as many as the classes allow",
    help="With --scenario: number of tasks.",
)
@experience_option
@click.option(
    "--seed", metavar="N", type=SEED, default=0, show_default=True, help="Seed of splits, sampler and trials."
)
@click.option(
    "--final-seeds",
    metavar="N",
    type=AT_LEAST_ONE,
    default=5,
    show_default=True,
    help="Maximum number of final runs per finalist.",
)
@click.option("--out", "folder", metavar="DIR", default="reports", show_default=True, help="Folder of the reports.")
@click.option("--fresh", is_flag=True, help="Start a new study under another name instead of resuming.")
def command(out: Output, dataset: str, folder: str, **options: Any) -> None:
    """Search for the best transfer settings; rerun to resume.

    The search proposes, runs and stops trials within the budget. The best few settings then run again with new seeds
    and splits, and the recommended settings and the default recipe are evaluated once on the test set. The command
    writes reports/STUDY/ with the report, recommended.yaml and model/.
    """
    from nbt.tuning.engines.ray.options import parse_gpus_per_trial

    options["gpus_per_trial"] = parse_gpus_per_trial(options["gpus_per_trial"])
    check_options({"dataset": dataset, **options})
    check_writable_folder("--out", folder)
    from nbt.cli.display.search_progress import SearchProgress

    with SearchProgress(out) as progress:
        try:
            from nbt import api

            result = api.search(dataset, **options, out=folder, observers=(progress,), progress=progress.update)
        except KeyboardInterrupt:
            trials = f"{progress.stored_trials} trial{'' if progress.stored_trials == 1 else 's'}"
            hint = _resume_hint(options["fresh"], progress.study)
            raise KeyboardInterrupt(f"interrupted: {trials} stored; to continue, run the same command{hint}") from None
        except NbtError as error:
            hint = _resume_hint(options["fresh"], progress.study)
            if hint and error.exit_code == NbtError.exit_code:
                raise NbtError(f"{error}; to continue, run the same command{hint}") from error
            raise
    if out.json:
        out.print_json(result.to_json())
    else:
        from nbt.cli.display.summary import search_summary

        out.print(*search_summary(result.record, result.recommended, result.report_path, result.run_options))


def _resume_hint(fresh: bool, study: str | None) -> str:
    """Returns how the same command must be changed to resume the study: `--fresh` would start another one."""
    return f" with --study {study} instead of --fresh" if fresh and study is not None else ""


def check_options(options: dict[str, Any]) -> None:
    """Checks the values of the options as far as possible without importing torch.

    Args:
        options: Values of the options of `nbt search`.

    Raises:
        UsageError: A value is invalid.
    """
    from nbt.tuning.budget import Budget
    from nbt.tuning.engines.factory import check_engine_options
    from nbt.tuning.engines.ray.options import RayOptions
    from nbt.tuning.space.space import Space
    from nbt.tuning.stream_task import check_stream

    Budget.parse(options["budget"])
    check_stream(options["scenario"], options["tasks"], options["pruner"])
    check_engine_options(
        options["engine"],
        options["workers"],
        RayOptions(options["ray_address"], options["gpus_per_trial"], options["cpus_per_trial"]),
    )
    check_task(options)
    Space.load(options["space"])
    check_study(options["study"], options["storage"])
    check_experience(options["experience"])
