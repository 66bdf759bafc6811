"""`nbt search`: search, finals, retraining, test and report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from nbt.cli.display.output import Output
from nbt.cli.options.checks import TASK_OPTIONS, check_experience, check_study, check_task
from nbt.cli.options.common import Command
from nbt.cli.options.from_search_config import read_config, search_config_options
from nbt.errors import NbtError, UsageError
from nbt.paths import check_outside, check_writable_folder
from nbt.search_config import SearchConfig
from nbt.task.options import check_candidates
from nbt.yaml_loader import line_of


@click.command(cls=Command)
@search_config_options
@click.pass_context
def command(ctx: click.Context, /, out: Output, **_: Any) -> None:
    """Search for the best transfer settings; rerun to resume.

    The search proposes, runs and stops trials within the budget. The best few settings then run again with new seeds
    and splits, and the recommended settings and the default recipe are evaluated once on the test set. The command
    writes reports/STUDY/ with the report, recommended.yaml and model/.
    """
    config, file = read_config(ctx), ctx.params["config_file"]
    with _belief_lines(file):
        check_options(config)
    check_writable_folder("--out", config.out)
    from nbt.display.search_progress import SearchProgress

    with SearchProgress(out.progress_mode) as progress:
        try:
            from nbt import api

            with _belief_lines(file):  # the space that applies to the task is known only with its images
                result = api.search(config, observers=(progress,), progress=progress.update)
        except KeyboardInterrupt:
            trials = f"{progress.stored_trials} trial{'' if progress.stored_trials == 1 else 's'}"
            hint = _resume_hint(config.fresh, progress.study)
            raise KeyboardInterrupt(f"interrupted: {trials} stored; to continue, run the same command{hint}") from None
        except NbtError as error:
            hint = _resume_hint(config.fresh, progress.study)
            if hint and error.exit_code == NbtError.exit_code:
                raise NbtError(f"{error}; to continue, run the same command{hint}") from error
            raise
    if out.json:
        out.print_json(result.to_json())
    else:
        from nbt.cli.display.summary import search_summary

        out.print(*search_summary(result.record, result.recommended, result.report_path))


@contextmanager
def _belief_lines(file: str | None) -> Iterator[None]:
    """Adds the line of the configuration file to errors of beliefs inside the context, if they are from the file."""
    from nbt.settings.belief import BeliefError

    try:
        yield
    except BeliefError as error:
        line = None if file is None else line_of(Path(file).read_text(encoding="utf-8"), "dimension", error.dimension)
        if line is None:
            raise
        raise UsageError(f"{file}, line {line}: {error}") from error


def _resume_hint(fresh: bool, study: str | None) -> str:
    """Returns how the same command must be changed to resume the study: `--fresh` would start another one."""
    return f" with --study {study} instead of --fresh" if fresh and study is not None else ""


def check_options(config: SearchConfig) -> None:
    """Checks the options as far as possible without importing torch.

    Raises:
        UsageError: A value is invalid.
    """
    from nbt.report.study.checks.registry import check_ignored
    from nbt.settings.belief import parse_beliefs
    from nbt.tuning.budget import Budget
    from nbt.tuning.engines.factory import check_engine_options
    from nbt.tuning.engines.ray.options import RayOptions
    from nbt.tuning.space.space import Space
    from nbt.tuning.stream_task import check_stream

    Budget.parse(config.budget, max_budget=config.max_budget, min_gain=config.min_gain)
    check_stream(config.scenario, config.tasks, config.pruner, config.metric)
    ray = RayOptions(config.ray_address, config.gpus_per_trial, config.cpus_per_trial)
    check_engine_options(config.engine, config.workers, ray)
    options = {name: getattr(config, name) for name in (*TASK_OPTIONS, "teacher", "resize", "source_data")}
    task = check_task(options)
    if config.backbones is not None:
        check_candidates(config.backbones)
    for source in (task.source, task.source_data):
        check_outside("--out", config.out, None if source is None else source.path)
    if config.storage is None:
        check_outside("--storage", ".nbt", task.source.path)
    space = Space.load(config.space)
    if config.beliefs is not None:
        from nbt.tuning.priors.beliefs import belief_priors

        belief_priors(parse_beliefs(config.beliefs), space)
    check_study(config.study, config.storage)
    check_experience(config.experience)
    check_ignored(config.ignore)
