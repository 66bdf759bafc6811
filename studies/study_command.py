"""The command line of a study: `run` trains what is missing, `report` writes table and figure of the stored rows."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from shards import start_shards
from study_rows import latest_rows

Row = dict[str, Any]


def run_study(
    args: argparse.Namespace,
    train_all: Callable[[argparse.Namespace], None],
    summarise: Callable[[Sequence[Row]], str],
    draw_figure: Callable[[Sequence[Row], Path], None],
    report: Path,
    figure: Path,
) -> None:
    """Runs the study, one process per core with one thread each, or writes its report.

    Args:
        args: Arguments of `shards.study_parser`.
        train_all: Trains the missing runs of a process.
        summarise: Returns the report of rows.
        draw_figure: Draws rows into a file.
        report: File of the report.
        figure: File of the figure.
    """
    if args.command == "run":
        start_shards(args)
        torch.set_num_threads(1)
        train_all(args)
        return
    rows = latest_rows(args.rows)
    report.write_text(summarise(rows), encoding="utf-8")
    draw_figure(rows, figure)
    print(report.read_text())
