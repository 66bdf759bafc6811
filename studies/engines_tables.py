"""Part of `bench_engines.py`: the tables of its rows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

OURS = "Ray engine"
OVERHEAD_GOAL, WORKERS_GOAL, REPORTS_GOAL, GROWTH_GOAL, DECISION_GOAL = 120.0, 1.6, 100.0, 1.0, 50.0


def to_markdown(rows: Mapping[str, Any]) -> str:
    """Returns the tables of the parts that have been measured, as Markdown."""
    parts = {
        "overhead": overhead,
        "workers": workers,
        "crowd": concurrent_trials,
        "brain": decisions,
        "checkpoints": checkpoints,
    }
    return "\n\n".join(table(rows[name]) for name, table in parts.items() if name in rows) + "\n"


def overhead(rows: Mapping[str, Any]) -> str:
    """Returns the table of the overhead per trial."""
    seconds = rows["seconds"]
    ours = 1e3 * statistics.median(seconds[OURS]["1"])
    lines = [
        "## Overhead of a trial",
        "",
        f"{rows['machine']}. {rows['blocks'] * rows['trials']} trials without training per cell, one at a time on "
        f"warm workers, in alternating blocks of {rows['trials']}; ms between the ends of consecutive trials.",
        "",
        "| arm | 1 epoch: median (mean) | 12 epochs: median (mean) | relative to the Ray engine | goal |",
        "|---|---|---|---|---|",
    ]
    for name, by_epochs in seconds.items():
        cells = [_milliseconds(by_epochs[epochs]) for epochs in ("1", "12")]
        ratio = 1e3 * statistics.median(by_epochs["1"]) / ours
        goal = f"<= {OVERHEAD_GOAL:g} ms" if name == OURS else ""
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {ratio:.2g}x | {goal} |")
    return "\n".join(lines)


def workers(rows: Mapping[str, Any]) -> str:
    """Returns the table of trials per second with one worker and with two."""
    seconds, trial_count = rows["seconds"], rows["jobs"]
    lines = [
        "## Two workers on frozen features",
        "",
        f"{rows['machine']}. {trial_count} trials of 12 epochs on CUB-50 crop at {rows['image_size']} px, "
        "`mobilenet_v2(width_mult=0.35)` transferred and frozen, all other settings random; one thread per worker, "
        f"features cached before. {rows['rounds']} alternating rounds; medians (minimum ... maximum).",
        "",
        "| engine | trials/s, 1 worker | trials/s, 2 workers | ratio within a round | goal |",
        "|---|---|---|---|---|",
    ]
    for engine in ("ray", "local"):
        one_worker, two_workers = (seconds[f"{engine} {count}"] for count in (1, 2))
        ratios = [a / b for a, b in zip(one_worker, two_workers, strict=True)]
        rates = [f"{trial_count / statistics.median(values):.2f}" for values in (one_worker, two_workers)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} ... {max(ratios):.2f})"
        lines.append(f"| {engine} | {rates[0]} | {rates[1]} | {spread} | >= {WORKERS_GOAL:g} |")
    return "\n".join(lines)


def concurrent_trials(rows: Mapping[str, Any]) -> str:
    """Returns the tables of runs with many concurrent trials."""
    runs = rows["runs"]
    lines = [
        "## Many concurrent trials",
        "",
        f"{rows['machine']}. {rows['nodes']} simulated nodes, no training. All trials of a wave run concurrently; "
        "workers and driver share the cores. The start is the time until all trials of a wave run: it includes the "
        "start of the processes in the first wave, and one proposal per trial with the search controller. The memory "
        "of a worker includes its share of shared pages, and swapped pages.",
        "",
        "| trials | per worker, MiB | wave | source | start, s | reports/s | driver's CPU, ms per report "
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
                f"With {trials} trials the machine swapped continuously ({run['swapped_bytes'] / 2**30:.1f} GiB at the "
                "end): this run shows that the number is possible, not its cost. The driver's memory is without "
                "swapped pages.",
            ]
    lines += ["", "| trials | measured | median | goal |", "|---|---|---|---|"]
    for trials, run in runs.items():
        for with_controller, name in ((False, "engine alone"), (True, "with the search controller")):
            waves = [wave for wave in run["waves"] if wave["brain"] == with_controller]
            if waves:
                rate = statistics.median(wave["reports"] / wave["seconds"] for wave in waves)
                lines.append(f"| {trials} | reports/s, {name} | {rate:.0f} | >= {REPORTS_GOAL:g} |")
            if (grown := growth(waves)) is not None:
                lines.append(f"| {trials} | driver's growth, MB per trial, {name} | {grown:.3f} | < {GROWTH_GOAL:g} |")
    return "\n".join(lines)


def swapped(run: Mapping[str, Any]) -> bool:
    """Returns whether the memory was too small for a run."""
    return bool(run["swapped_bytes"] > 0.01 * sum(run["worker_bytes"]))


def _wave_cells(wave: Mapping[str, Any]) -> str:
    return (
        f"| {'controller' if wave['brain'] else 'list'} | {wave['handed_over_seconds']:.1f} "
        f"| {wave['reports'] / wave['seconds']:.0f} | {1e3 * wave['driver_cpu_seconds'] / wave['reports']:.2f} "
        f"| {wave['driver_bytes'] / 2**20:.0f} |"
    )


def growth(waves: Sequence[Mapping[str, Any]]) -> float | None:
    """Returns the growth of the driver per trial after the first wave, in MB; None for a single wave."""
    if len(waves) < 2:
        return None
    trials = sum(wave["trials"] for wave in waves[1:])
    return float((waves[-1]["driver_bytes"] - waves[0]["driver_bytes"]) / 1e6 / trials)


def decisions(rows: Mapping[str, Any]) -> str:
    """Returns the table of the search controller's decision times."""
    lines = [
        "## Decisions of the search controller",
        "",
        f"{rows['machine']}. A search on digits with default options (Bayesian sampler, fit pruner, storage in "
        "SQLite) without training; ms, median (95th percentile), over the last 100 trials, and with many concurrent "
        f"trials over {rows['trials']} that end. The goal is < {DECISION_GOAL:g} ms at 2,000 finished trials.",
        "",
        "| finished | running | next trial | of which writing | epoch | of which writing | end of a trial |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_decision_line(row) for row in (*rows["built"], *rows["beside"])]
    tracked = rows["tracked"]
    lines += [
        "",
        f"With MLflow in SQLite, the end of a trial takes {_quantiles(tracked['ms']['on_done'])} ms, in a study of "
        f"{tracked['finished']} trials.",
    ]
    return "\n".join(lines)


def checkpoints(rows: Mapping[str, Any]) -> str:
    """Returns the table of checkpoints."""
    sizes = ", ".join(f"`{name}` {1e-6 * size:.0f} MB" for name, size in rows["trial_bytes"].items())
    lines = [
        "## Sending checkpoints to the driver",
        "",
        f"{rows['machine']}. Size of a checkpoint of a trial that trains the whole backbone: {sizes}. The table has "
        f"trials of {rows['epochs']} epochs without training that write a checkpoint of zeros per epoch.",
        "",
        "| size, MB | per trial, ms: median (mean) |",
        "|---|---|",
        *(f"| {size} | {_milliseconds(seconds)} |" for size, seconds in rows["seconds"].items()),
    ]
    return "\n".join(lines)


def _decision_line(row: Mapping[str, Any]) -> str:
    ms = row["ms"]
    written = ms["store.report"]["median"] + ms["store.write_progress"]["median"]
    cells = [_quantiles(ms[name]) for name in ("next_job", "on_epoch", "on_done")]
    start_ms = ms["next_job"]["median"] - ms["proposal"]["median"]
    return (
        f"| {row['finished']} | {row['running']} | {cells[0]} | {start_ms:.0f} | {cells[1]} | {written:.1f} "
        f"| {cells[2]} |"
    )


def _quantiles(ms: Mapping[str, float]) -> str:
    return f"{ms['median']:.1f} ({ms['p95']:.1f})"


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{_short(1e3 * statistics.median(seconds))} ({_short(1e3 * statistics.fmean(seconds))})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
