"""Part of `bench_engines.py`: where many GPUs would bind, worked out from what was measured."""

from __future__ import annotations

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
    """What something takes of the driver.

    Attributes:
        name: What it is.
        each: "report" or "trial".
        milliseconds: For each of them.
    """

    name: str
    each: str
    milliseconds: float

    def share(self, epoch_seconds: float) -> float:
        """Returns the share of the driver's time that it takes, with as many trials as GPUs at a time."""
        reports = GPUS / epoch_seconds
        return 1e-3 * self.milliseconds * (reports if self.each == "report" else reports / EPOCHS)


def costs(rows: Mapping[str, Any]) -> list[Cost]:
    """Returns what the driver does, one thing after another: Python runs one of its threads at a time."""
    _, largest = _largest(rows)
    waves = [wave for wave in largest["waves"] if not wave["brain"]]
    engine = statistics.median(1e3 * wave["driver_cpu_seconds"] / wave["reports"] for wave in waves)
    warm = statistics.median(1e3 * wave["handed_over_seconds"] / wave["trials"] for wave in waves[1:])
    last = rows["brain"]["beside"][-1]["ms"]
    small = rows["brain"]["built"][0]["ms"]
    tracked = rows["brain"]["tracked"]["ms"]["on_done"]["median"] - small["on_done"]["median"]
    writes = sum(last[name]["median"] for name in ("store.report", "store.write_progress"))
    return [
        Cost("passing a report on (Ray, Tune, our engine)", "report", engine),
        Cost("storing an epoch", "report", writes),
        Cost("deciding on an epoch", "report", last["on_epoch"]["median"] - writes),
        Cost("handing a trial to a warm worker", "trial", warm),
        Cost("proposing and storing a trial", "trial", last["next_job"]["median"]),
        Cost("ending a trial in the storage", "trial", last["on_done"]["median"]),
        Cost("writing its MLflow run", "trial", tracked),
    ]


def _largest(rows: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Returns the run with the most trials at a time that had the memory for it: swapping is no cost of the driver."""
    return [(trials, run) for trials, run in rows["crowd"]["runs"].items() if not swapped(run)][-1]


def table(rows: Mapping[str, Any]) -> str:
    """Returns the costs, and the driver's load at epochs of several lengths."""
    found = costs(rows)
    lines = [
        f"| the driver, {GPUS} trials at a time | measured, ms "
        + "".join(f"| epochs of {seconds} s " for seconds in EPOCH_SECONDS)
        + "|",
        "|---|---|" + "---|" * len(EPOCH_SECONDS),
    ]
    for cost in found:
        shares = "".join(f"| {_percent(cost.share(seconds))} " for seconds in EPOCH_SECONDS)
        lines.append(f"| {cost.name} | {cost.milliseconds:.1f} a {cost.each} {shares}|")
    totals = [sum(cost.share(seconds) for cost in found) for seconds in EPOCH_SECONDS]
    lines.append("| **together** | " + "".join(f"| **{_percent(total)}** " for total in totals) + "|")
    lines += ["", *_sentences(rows, found)]
    return "\n".join(lines)


def _sentences(rows: Mapping[str, Any], found: list[Cost]) -> list[str]:
    shortest = sum(cost.share(1.0) for cost in found)
    without = shortest - found[-1].share(1.0)
    trials, largest = _largest(rows)
    kept = [wave for wave in largest["waves"] if wave["brain"]]
    grown = (kept[-1]["driver_bytes"] - kept[0]["driver_bytes"]) / 1e6 / sum(wave["trials"] for wave in kept[1:])
    lines = [
        f"- The driver keeps up with {GPUS} trials whose epochs take {shortest:.0f} s or more; with MLflow written "
        f"afterwards (`nbt sync`), {without:.0f} s or more.",
        f"- Its memory grew by {grown:.2f} MB a trial with the brain behind it ({trials} trials at a time): about "
        f"{1e-3 * grown * 10_000:.1f} GB after 10,000 trials, extrapolated.",
    ]
    moved = rows["checkpoints"]
    seconds = {int(size): statistics.median(values) for size, values in moved["seconds"].items()}
    largest_size = max(seconds)
    rate = largest_size * moved["epochs"] / (seconds[largest_size] - seconds[0])
    for name, size in moved["trial_bytes"].items():
        wanted = 1e-6 * size * GPUS / CHECKPOINT_SECONDS
        wait = size * GPUS / CHECKPOINT_BYTES_PER_SECOND
        lines.append(
            f"- A checkpoint of `{name}`, all of it trained, has {1e-6 * size:.0f} MB. One every "
            f"{CHECKPOINT_SECONDS:.0f} s from each of {GPUS} trials would be {1e-3 * wanted:.1f} GB/s; the driver took "
            f"{rate:.0f} MB/s from a worker on the same machine, written to its disk. Bounded to "
            f"{1e-6 * CHECKPOINT_BYTES_PER_SECOND:.0f} MB/s together, each trial sends one every {wait / 60:.0f} min."
        )
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1f} %"


def update_page(page: Path, rows: Mapping[str, Any]) -> None:
    """Puts the table into a page, in place of the one between the two marks."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}", encoding="utf-8")
