"""`nbt check`: checks a dataset."""

from __future__ import annotations

import logging
from typing import Any

import click

from nbt.cli.display.output import Output
from nbt.cli.options.common import Command, config_option
from nbt.task.options import check_task_options


@click.command(cls=Command)
@config_option("dataset", required=True)
@config_option("data_dir")
@config_option("image_size", show_default="that of the dataset, else 224")
@config_option("classes")
@config_option("resize")
@config_option("ignore")
def command(out: Output, dataset: str, ignore: tuple[str, ...], **options: Any) -> int:
    """Check the images of a dataset.

    The checks say how folders are read, which files are passed over or unreadable, which classes are missing, small or
    unequal, and more; docs/checks.md explains their codes. The exit code is 1 if a check of the severity error failed.
    The same checks are made before every search.
    """
    check_task_options(dataset, **options)
    from nbt.cli.display.check_lines import check_lines
    from nbt.display.progress import Progress

    if not out.verbose:
        logging.getLogger("nbt").setLevel(logging.ERROR)  # what is left out is in the results
    with Progress(out.progress_mode) as progress:
        from nbt import api

        results = api.check(dataset, ignore=",".join(ignore), progress=progress.update, **options)
    if out.json:
        out.print_json({"dataset": dataset, "checks": [result.to_dict() for result in results]})
    else:
        out.print(*check_lines(results))
    return int(any(result.is_failed and result.severity == "error" for result in results))
