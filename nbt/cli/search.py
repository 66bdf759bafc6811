"""`nbt search`: the whole job."""

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
@click.option("--budget", required=True, metavar="N|30m|2h", help="Full trials' worth of training, or wall-clock.")
@click.option("--space", metavar="NAME|FILE", default="non_binary", show_default=True, help="See nbt spaces.")
@teacher_option
@choice_option(
    "--engine",
    ENGINES,
    default="local",
    show_default=True,
    help="Who runs the trials; Ray takes the images to its nodes.",
)
@click.option("--workers", metavar="N", type=AT_LEAST_ONE, default=1, show_default=True, help="Trials at a time.")
@click.option(
    "--ray-address", metavar="auto|HOST:PORT|ray://...", help="A running cluster; a Ray of its own when not given."
)
@click.option("--gpus-per-trial", metavar="F|auto", help="With Ray: GPUs, or a share of one; auto measures it.")
@click.option("--cpus-per-trial", metavar="F", type=float, help="With Ray: CPUs; shared out when not given.")
@click.option(
    "--epochs", metavar="N", type=AT_LEAST_ONE, default=12, show_default=True, help="Of a full trial, or a task."
)
@click.option("--study", metavar="NAME", help="Derived from dataset, backbone and space when not given.")
@storage_option
@tracking_option
@choice_option("--pruner", PRUNER_NAMES, default="fit", show_default=True, help="Who stops weak trials early.")
@click.option("--no-heuristics", "heuristics", is_flag=True, flag_value=False, default=True, help="Plain TPE proposes.")
@choice_option("--scenario", ("data", "task", "class"), help="Search for a stream of tasks; see nbt continual.")
@click.option("--tasks", metavar="N", type=AT_LEAST_ONE, help="Length of the stream; 5 where the classes suffice.")
@experience_option
@click.option("--seed", metavar="N", type=SEED, default=0, show_default=True, help="Of splits, sampler and trials.")
@click.option("--final-seeds", metavar="N", type=AT_LEAST_ONE, default=5, show_default=True, help="Runs a finalist.")
@click.option("--out", "folder", metavar="DIR", default="reports", show_default=True, help="Where reports go.")
@click.option("--fresh", is_flag=True, help="Start over under a new name instead of resuming.")
def command(out: Output, dataset: str, folder: str, **options: Any) -> None:
    """Search for the best transfer; the same command resumes.

    Trials are chosen, run and stopped within the budget; the best few run again with new seeds and splits; the
    recommendation and the default recipe are tested once. Writes reports/STUDY/ with the report, recommended.yaml
    and model/.
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
            trials = f"{progress.kept} trial{'' if progress.kept == 1 else 's'}"
            again = _resume_hint(options["fresh"], progress.study)
            raise KeyboardInterrupt(f"interrupted: {trials} kept; the same command continues{again}") from None
        except NbtError as error:
            again = _resume_hint(options["fresh"], progress.study)
            if again and error.exit_code == NbtError.exit_code:
                raise NbtError(f"{error}; go on{again}") from error
            raise
    if out.json:
        out.print_json(result.to_json())
    else:
        from nbt.cli.display.summary import search_summary

        out.print(*search_summary(result.record, result.recommended, result.report_path, result.run_options))


def _resume_hint(fresh: bool, study: str | None) -> str:
    """Returns what must be different in the same command for it to go on: `--fresh` would begin another study."""
    return f" with --study {study} instead of --fresh" if fresh and study is not None else ""


def check_options(options: dict[str, Any]) -> None:
    """Checks what can be checked without torch.

    Raises:
        UsageError: Something is wrong.
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
