"""Part of `bench_engines.py`: the limits with many GPUs, extrapolated from the measurements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines_tables import swapped

from nbt.tuning.engines.ray.engine import CHECKPOINT_BYTES_PER_SECOND

GPUS, EPOCHS = 1000, 12
CHECKPOINT_SECONDS = 30.0
EPOCH_SECONDS = (5, 15, 60, 300)
BEGIN, END = "<!-- from bench_engines.json -->", "<!-- to here -->"


@dataclass(frozen=True)
class Cost:
    """Time that the driver spends on one kind of work.

    Attributes:
        name: Description of the work.
        unit: "report" or "trial".
        milliseconds: Time per unit, in milliseconds.
    """

    name: str
    unit: str
    milliseconds: float

    def share(self, epoch_seconds: float) -> float:
        """Returns the share of the driver's time, with one concurrent trial per GPU."""
        reports = GPUS / epoch_seconds
        return 1e-3 * self.milliseconds * (reports if self.unit == "report" else reports / EPOCHS)


def costs(rows: Mapping[str, Any]) -> list[Cost]:
    """Returns the costs of the driver, which add up because Python runs one thread at a time."""
    _, largest = _largest(rows)
    waves = [wave for wave in largest["waves"] if not wave["brain"]]
    engine = statistics.median(1e3 * wave["driver_cpu_seconds"] / wave["reports"] for wave in waves)
    warm = statistics.median(1e3 * wave["handed_over_seconds"] / wave["trials"] for wave in waves[1:])
    last = rows["brain"]["beside"][-1]["ms"]
    small = rows["brain"]["built"][0]["ms"]
    tracked = rows["brain"]["tracked"]["ms"]["on_done"]["median"] - small["on_done"]["median"]
    writes = sum(last[name]["median"] for name in ("store.report", "store.write_progress"))
    return [
        Cost("forwarding a report (Ray, Tune, engine)", "report", engine),
        Cost("storing an epoch", "report", writes),
        Cost("deciding on an epoch", "report", last["on_epoch"]["median"] - writes),
        Cost("assigning a trial to a warm worker", "trial", warm),
        Cost("proposing and storing a trial", "trial", last["next_job"]["median"]),
        Cost("ending a trial in the storage", "trial", last["on_done"]["median"]),
        Cost("writing its MLflow run", "trial", tracked),
    ]


def _largest(rows: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Returns the run with the most concurrent trials that did not swap, as swapping is no cost of the driver."""
    return [(trials, run) for trials, run in rows["crowd"]["runs"].items() if not swapped(run)][-1]


def table(rows: Mapping[str, Any]) -> str:
    """Returns the table of costs and of the driver's load at several lengths of epochs."""
    driver_costs = costs(rows)
    lines = [
        f"| work of the driver, {GPUS} concurrent trials | measured, ms "
        + "".join(f"| epochs of {seconds} s " for seconds in EPOCH_SECONDS)
        + "|",
        "|---|---|" + "---|" * len(EPOCH_SECONDS),
    ]
    for cost in driver_costs:
        shares = "".join(f"| {_percent(cost.share(seconds))} " for seconds in EPOCH_SECONDS)
        lines.append(f"| {cost.name} | {cost.milliseconds:.1f} per {cost.unit} {shares}|")
    totals = [sum(cost.share(seconds) for cost in driver_costs) for seconds in EPOCH_SECONDS]
    lines.append("| **total** | " + "".join(f"| **{_percent(total)}** " for total in totals) + "|")
    lines += ["", *_sentences(rows, driver_costs)]
    return "\n".join(lines)


def _sentences(rows: Mapping[str, Any], driver_costs: list[Cost]) -> list[str]:
    shortest = sum(cost.share(1.0) for cost in driver_costs)
    without_mlflow = shortest - driver_costs[-1].share(1.0)
    trials, largest = _largest(rows)
    waves = [wave for wave in largest["waves"] if wave["brain"]]
    growth = (waves[-1]["driver_bytes"] - waves[0]["driver_bytes"]) / 1e6 / sum(wave["trials"] for wave in waves[1:])
    lines = [
        f"- The driver can handle {GPUS} concurrent trials whose epochs take {math.ceil(shortest)} s or more; if "
        f"MLflow is written afterwards (`nbt sync`), {math.ceil(without_mlflow)} s or more.",
        f"- Its memory grew by {growth:.2f} MB per trial with the search controller ({trials} concurrent trials): "
        f"about {1e-3 * growth * 10_000:.1f} GB after 10,000 trials, extrapolated.",
    ]
    measured = rows["checkpoints"]
    seconds = {int(size): statistics.median(values) for size, values in measured["seconds"].items()}
    largest_size = max(seconds)
    rate = largest_size * measured["epochs"] / (seconds[largest_size] - seconds[0])
    for name, size in measured["trial_bytes"].items():
        unlimited = 1e-6 * size * GPUS / CHECKPOINT_SECONDS
        interval = size * GPUS / CHECKPOINT_BYTES_PER_SECOND
        lines.append(
            f"- A checkpoint of a fully trained `{name}` has {1e-6 * size:.0f} MB. One every "
            f"{CHECKPOINT_SECONDS:.0f} s from each of {GPUS} trials would be {1e-3 * unlimited:.1f} GB/s; the driver "
            f"received and wrote to disk {rate:.0f} MB/s from a worker on the same machine. With the limit of "
            f"{1e-6 * CHECKPOINT_BYTES_PER_SECOND:.0f} MB/s for all trials together, each trial sends one every "
            f"{interval / 60:.0f} min."
        )
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1f} %"


def update_page(page: Path, rows: Mapping[str, Any]) -> None:
    """Replaces the table between the two marks of a page."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}", encoding="utf-8")
