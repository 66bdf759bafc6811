"""Check of `nbt.tuning.relative_cost`: estimated costs of trainings against the CPU time of recorded ones.

    python studies/training_cost.py studies/recorded/informed/*.parquet

The unit is an epoch of the default recipe of the same table. The estimate does not know which frozen features an
earlier training has left in the cache of the worker: a second linear probe costs a tenth of its estimate, and so all
linear probes are listed apart. Writes `studies/results/training_cost.md`.
"""

from __future__ import annotations

import math
import statistics
import sys
from pathlib import Path

from nbt.models.backbone import unit_work
from nbt.models.backbone_spec import parse_backbone
from nbt.settings import TransferSettings
from nbt.transfer.transfer_depth import frozen_units
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable
from nbt.tuning.relative_cost import CostModel

OUT = Path(__file__).resolve().parent / "results" / "training_cost.md"
TOLERANCE = math.log(1.2)


def first_estimate(settings: TransferSettings, epochs: int) -> float:
    """Returns the estimate of the first formula, which knew the frozen depth alone."""
    return epochs * (1.0 - 0.8 * settings.frozen_depth)


def cpu_seconds(run: RecordedRun) -> float:
    """Returns the CPU time of all epochs of a run in seconds."""
    return sum(result.cpu_seconds or 0.0 for result in run.curve)


def row(name: str, table: RecordedTable, runs: list[RecordedRun]) -> str:
    """Returns a line of the result for some runs of a table."""
    model = CostModel.of(table.header.backbone, table.header.image_size, table.header.facts)
    unit = statistics.fmean(cpu_seconds(r) / len(r.curve) for r in table.runs if r.origin == "anchor: default recipe")
    measured = [cpu_seconds(run) / unit for run in runs]
    cells = [name, str(len(runs)), f"{sum(measured):.0f}"]
    for estimates in (
        [first_estimate(run.settings, len(run.curve)) for run in runs],
        [model.training(run.settings, len(run.curve)) for run in runs],
    ):
        errors = [abs(math.log(e / m)) for e, m in zip(estimates, measured, strict=True)]
        beyond = sum(error > TOLERANCE for error in errors) / len(errors)
        cells += [f"{sum(estimates):.0f}", f"{math.exp(statistics.fmean(errors)):.2f}", f"{100 * beyond:.0f} %"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Writes the table for the recorded tables of the command line."""
    head = ["table", "trainings", "measured epochs", "first formula: epochs", "typical factor", "off by more than 20 %"]
    head += ["now: epochs", "typical factor", "off by more than 20 %"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for path in map(Path, sys.argv[1:]):
        table = RecordedTable.load(path)
        n_units = len(unit_work(parse_backbone(table.header.backbone), table.header.image_size))
        probes = [run for run in table.runs if frozen_units(run.settings, n_units)[0] == n_units]
        lines.append(row(path.stem, table, [run for run in table.runs if run not in probes]))
        lines.append(row(f"{path.stem}, linear probes", table, probes))
    text = "\n".join(["# Estimated and measured cost of trainings", "", *lines, ""])
    OUT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
