"""`nbt report`: rewrites the report of a study, or compares several."""

from __future__ import annotations

from collections.abc import Sequence

import click

from nbt.cli.display.output import Output
from nbt.cli.options.checks import check_study
from nbt.cli.options.common import Command, config_option
from nbt.errors import UsageError
from nbt.paths import check_writable_folder


@click.command(cls=Command)
@click.argument("studies", metavar="STUDY...", nargs=-1, required=True)
@config_option("storage")
@config_option("out")
@config_option("ignore", show_default="that of the search")
@config_option("images")
def command(
    out: Output, studies: Sequence[str], storage: str | None, folder: str, ignore: tuple[str, ...], images: bool
) -> None:
    """Rewrite a study's report, or compare studies.

    Several studies of the same images are compared. The comparison has the test result of each study with its
    interval, the paired difference from the first one on the same test images, budgets and times, and the settings
    that differ. It is written to OUT/A+B/report.html.
    """
    for study in studies:
        check_study(study, storage)
    if len(studies) > 1 and (ignore or not images):
        raise UsageError("--ignore and --no-images: a comparison has neither checks nor images; leave them out")
    check_writable_folder("--out", folder)
    from nbt import api

    if len(studies) == 1:
        path = api.report(studies[0], storage, folder, ignore=ignore or None, images=images)
        content, sentences = {"study": studies[0]}, []
    else:
        comparison, path = api.compare(studies, storage, folder)
        content, sentences = comparison.to_json(), comparison.sentences
    if out.json:
        out.print_json({**content, "report": path})
    else:
        out.print(*sentences, str(path))
