"""Part of `bench_engines.py`: its rows as tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

OURS = "Ray engine"
OVERHEAD_GOAL, WORKERS_GOAL, REPORTS_GOAL, GROWTH_GOAL, DECISION_GOAL = 120.0, 1.6, 100.0, 1.0, 50.0


def to_markdown(rows: Mapping[str, Any]) -> str:
    """Returns the tables of the parts that there are."""
    parts = {"overhead": overhead, "workers": workers, "crowd": crowd, "brain": brain, "checkpoints": checkpoints}
    return "\n\n".join(table(rows[name]) for name, table in parts.items() if name in rows) + "\n"


def overhead(found: Mapping[str, Any]) -> str:
    seconds = found["seconds"]
    ours = 1e3 * statistics.median(seconds[OURS]["1"])
    lines = [
        "## Overhead of a trial",
        "",
        f"{found['machine']}. {found['blocks'] * found['trials']} trials without training in each cell, one at a time "
        f"on warm workers, in blocks of {found['trials']} in turn; ms from the end of one trial to that of the next.",
        "",
        "| arm | 1 epoch: median (mean) | 12 epochs: median (mean) | against the Ray engine | goal |",
        "|---|---|---|---|---|",
    ]
    for name, by_epochs in seconds.items():
        cells = [_milliseconds(by_epochs[epochs]) for epochs in ("1", "12")]
        ratio = 1e3 * statistics.median(by_epochs["1"]) / ours
        goal = f"<= {OVERHEAD_GOAL:g} ms" if name == OURS else ""
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {ratio:.2g}x | {goal} |")
    return "\n".join(lines)


def workers(found: Mapping[str, Any]) -> str:
    seconds, jobs = found["seconds"], found["jobs"]
    lines = [
        "## Two workers on frozen features",
        "",
        f"{found['machine']}. {jobs} trials of 12 epochs on CUB-50 crop at {found['image_size']} px, "
        "`mobilenet_v2(width_mult=0.35)` kept and frozen, all other settings random; one thread a worker, features "
        f"cached before. {found['rounds']} rounds, the arms in turn; medians (least ... greatest).",
        "",
        "| engine | trials/s, 1 worker | trials/s, 2 workers | ratio within a round | goal |",
        "|---|---|---|---|---|",
    ]
    for engine in ("ray", "local"):
        one, two = (seconds[f"{engine} {count}"] for count in (1, 2))
        ratios = [a / b for a, b in zip(one, two, strict=True)]
        rates = [f"{jobs / statistics.median(values):.2f}" for values in (one, two)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} ... {max(ratios):.2f})"
        lines.append(f"| {engine} | {rates[0]} | {rates[1]} | {spread} | >= {WORKERS_GOAL:g} |")
    return "\n".join(lines)


def crowd(found: Mapping[str, Any]) -> str:
    runs = found["runs"]
    lines = [
        "## Many trials at a time",
        "",
        f"{found['machine']}. {found['nodes']} simulated nodes, no training. A wave begins with all trials running; "
        "workers and driver share the cores. Handing over is what it takes to start all of a wave: in the first one "
        "with the start of the processes, behind the brain with a proposal a trial. The memory of a worker is its own "
        "and its share of what it shares, swapped or not.",
        "",
        "| trials | a worker, MiB | wave | source | handed over, s | reports/s | driver's CPU, ms a report "
        "| driver, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for trials, run in runs.items():
        size = statistics.median(run["worker_bytes"]) / 2**20
        lines += [f"| {trials} | {size:.0f} | {n + 1} {_wave_cells(wave)}" for n, wave in enumerate(run["waves"])]
    for trials, run in runs.items():
        if swapped(run):
            lines += [
                "",
                f"With {trials} trials the machine swapped all the time ({run['swapped_bytes'] / 2**30:.1f} GiB in a "
                "file at the end): what they show is that so many work, not what they cost. Of the driver's memory "
                "only what was not swapped is counted.",
            ]
    lines += ["", "| trials | measured | median | goal |", "|---|---|---|---|"]
    for trials, run in runs.items():
        for brain, name in ((False, "the engine alone"), (True, "the brain behind it")):
            mine = [wave for wave in run["waves"] if wave["brain"] == brain]
            if mine:
                rate = statistics.median(wave["reports"] / wave["seconds"] for wave in mine)
                lines.append(f"| {trials} | reports/s, {name} | {rate:.0f} | >= {REPORTS_GOAL:g} |")
            if (grown := growth(mine)) is not None:
                lines.append(f"| {trials} | driver's growth, MB a trial, {name} | {grown:.3f} | < {GROWTH_GOAL:g} |")
    return "\n".join(lines)


def swapped(run: Mapping[str, Any]) -> bool:
    """Tells whether the memory was too small for a run."""
    return bool(run["swapped_bytes"] > 0.01 * sum(run["worker_bytes"]))


def _wave_cells(wave: Mapping[str, Any]) -> str:
    return (
        f"| {'brain' if wave['brain'] else 'list'} | {wave['handed_over_seconds']:.1f} "
        f"| {wave['reports'] / wave['seconds']:.0f} | {1e3 * wave['driver_cpu_seconds'] / wave['reports']:.2f} "
        f"| {wave['driver_bytes'] / 2**20:.0f} |"
    )


def growth(waves: Sequence[Mapping[str, Any]]) -> float | None:
    """Returns by how much the driver grew for each trial after the first wave, in MB; None of a single wave."""
    if len(waves) < 2:
        return None
    trials = sum(wave["trials"] for wave in waves[1:])
    return float((waves[-1]["driver_bytes"] - waves[0]["driver_bytes"]) / 1e6 / trials)


def brain(found: Mapping[str, Any]) -> str:
    lines = [
        "## Decisions of the brain",
        "",
        f"{found['machine']}. A search on digits with everything at its default (guided proposals, fit pruner, storage "
        "in SQLite), without training; ms, median (95th percentile), over the last 100 trials, and where many run over "
        f"{found['trials']} that end. The goal is < {DECISION_GOAL:g} ms at 2,000 finished trials.",
        "",
        "| finished | running | next trial | of it writing | epoch | of it writing | end of a trial |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_brain_line(row) for row in (*found["built"], *found["beside"])]
    tracked = found["tracked"]
    lines += [
        "",
        f"With MLflow in SQLite the end of a trial takes {_quantiles(tracked['ms']['on_done'])} ms, in a study of "
        f"{tracked['finished']} trials.",
    ]
    return "\n".join(lines)


def checkpoints(found: Mapping[str, Any]) -> str:
    """Returns the table of checkpoints."""
    sizes = ", ".join(f"`{name}` {1e-6 * size:.0f} MB" for name, size in found["trial_bytes"].items())
    lines = [
        "## Checkpoints on their way to the driver",
        "",
        f"{found['machine']}. A checkpoint of a trial that trains all of its backbone: {sizes}. Below, trials of "
        f"{found['epochs']} epochs without training that write one of zeros after each.",
        "",
        "| size, MB | a trial, ms: median (mean) |",
        "|---|---|",
        *(f"| {size} | {_milliseconds(seconds)} |" for size, seconds in found["seconds"].items()),
    ]
    return "\n".join(lines)


def _brain_line(row: Mapping[str, Any]) -> str:
    found = row["ms"]
    written = found["store.report"]["median"] + found["store.write_progress"]["median"]
    cells = [_quantiles(found[name]) for name in ("next_job", "on_epoch", "on_done")]
    asked = found["next_job"]["median"] - found["proposal"]["median"]
    return (
        f"| {row['finished']} | {row['running']} | {cells[0]} | {asked:.0f} | {cells[1]} | {written:.1f} | {cells[2]} |"
    )


def _quantiles(found: Mapping[str, float]) -> str:
    return f"{found['median']:.1f} ({found['p95']:.1f})"


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{_short(1e3 * statistics.median(seconds))} ({_short(1e3 * statistics.fmean(seconds))})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
