"""`nbt studies`: lists the studies in the storage."""

from __future__ import annotations

from typing import Any

import click

from nbt.cli.display.output import Output, to_strict
from nbt.cli.options.checks import check_study
from nbt.cli.options.common import Command, config_option


@click.command(cls=Command)
@config_option("storage")
def command(out: Output, storage: str | None) -> None:
    """List the studies in the storage."""
    check_study(None, storage)
    from nbt import api

    studies = [to_strict(study) for study in api.studies(storage)]
    if out.json:
        out.print_json(studies)
    else:
        empty_text = "no studies yet; nbt search --dataset digits --budget 20 creates one"
        out.print_rows([_row(study) for study in studies], empty_text=empty_text)


def _row(study: dict[str, Any]) -> dict[str, Any]:
    from nbt.report.metric_text import value_text

    return {
        "study": study["name"],
        "dataset": study["dataset"],
        "backbone": study["backbone"],
        "space": study["space"],
        "budget": study["budget"],
        "trials": ", ".join(f"{count} {state}" for state, count in study["trials"].items() if count),
        "best": value_text(study["metric"], study["best"]),
        "state": "finished" if study["finished"] else "unfinished",
    }
