"""The command line that studies share."""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml


def run_and_report_parser(
    description: str | None, rows: Path
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Returns the parser of a study with the commands `run` and `report`, and that of `run`.

    Args:
        description: Docstring of the study.
        rows: Default file of its rows.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run what has no row yet")
    run.add_argument("--shared", type=Path, required=True, help="folder with data/ and weights/")
    report = commands.add_parser("report", help="write the report of the stored rows")
    for command in (run, report):
        command.add_argument("--rows", type=Path, default=rows)
    return parser, run


def judging_datasets(shared: Path) -> list[str]:
    """Returns the names of the data sets that only judge."""
    names: list[str] = yaml.safe_load((shared / "data" / "tasks.yaml").read_text(encoding="utf-8"))["judging"]
    return names
