"""Runs a study in one process per usable core, each with a part of its items."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from command_line import run_and_report_parser

from nbt.machine.cores import usable_cores
from nbt.tuning.engines.cpu_threads import thread_environment

AUTO = "auto"


def add_shard_option(parser: argparse.ArgumentParser, items: str) -> None:
    """Adds `--shard`, which divides the items of a study among processes.

    Args:
        parser: Parser of the command that computes the items.
        items: Name of the items, such as "source model".
    """
    text = f"I/N: run every N-th {items}, starting with the I-th (counted from 0); auto: all, one process per core"
    parser.add_argument("--shard", default=AUTO, help=text)


def study_parser(
    description: str | None, rows: Path, items: str
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Returns the parser of a study with the commands `run`, in shards, and `report`, and that of `run`.

    Args:
        description: Docstring of the study.
        rows: Default file of its rows.
        items: What `--shard` divides, such as "data set".
    """
    parser, run = run_and_report_parser(description, rows)
    run.add_argument("--minutes", type=float, default=180.0, help="no new run after this time")
    add_shard_option(run, items)
    return parser, run


def start_shards(args: argparse.Namespace) -> None:
    """Sets `args.shard` on one core; on several, runs this command once per core and exits with the highest code."""
    cores = usable_cores()
    if args.shard == AUTO and cores > 1:
        environment = {**os.environ, **thread_environment(1)}
        commands = [[sys.executable, *sys.argv, "--shard", f"{part}/{cores}"] for part in range(cores)]
        processes = [subprocess.Popen(command, env=environment) for command in commands]
        try:
            codes = [process.wait() for process in processes]
        except KeyboardInterrupt:  # the processes receive it, too
            codes = [process.wait() or 130 for process in processes]
        raise SystemExit(max(map(abs, codes)))
    if args.shard == AUTO:
        args.shard = "0/1"
