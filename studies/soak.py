"""Study: does a very long search stay as it was at its start?

Runs one search of 20,000 trials of two epochs without training: the search controller with its default options, SQLite
storage and two worker processes of the local engine, which report simulated curves. Every 1,000 trials it records the
time per trial, of the driver the CPU time, memory, open files and threads, and the size of the database. At the end it
reads the study and writes the report.

    python studies/soak.py --work FOLDER            # the folder keeps the study; an interrupted run continues
    python studies/soak.py --work FOLDER --trials 2000 --every 200
    python studies/soak.py report

Writes `studies/results/soak.json` and `.md`. The slopes are those of straight lines through the second half of the
rows, with Student's 95 % intervals; the memory may grow by what the study keeps of a trial in memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engines_controller import TimedController, open_controller, simulated_epoch
from machine import machine, memory_of_process
from scipy.stats import linregress, t

from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.engines.local import LocalEngine

HERE = Path(__file__).resolve().parent
EPOCHS, WORKERS, STUDY = 2, 2, "soak"
MEASURES = {
    "ms": "ms per trial",
    "cpu": "driver's CPU, ms per trial",
    "anonymous": "driver, MiB",
    "files": "open files",
    "threads": "threads",
    "database": "database, MiB",
}


class SimulatedRunner:
    """Reports the epochs of a simulated curve as fast as the driver accepts them."""

    def __init__(self, task: object, **unused: object) -> None:
        self.device = "cpu"

    def run(self, spec: TrialSpec, on_epoch: Callable[[EpochResult], str | None]) -> TrialOutcome:
        """Reports the epochs of a trial."""
        curve: list[EpochResult] = []
        for epoch in range(1, spec.settings.epochs + 1):
            curve.append(simulated_epoch(spec, epoch))
            reason = on_epoch(curve[-1])
            if reason is not None:
                return TrialOutcome(curve=tuple(curve), stopped=reason)
        return TrialOutcome(curve=tuple(curve))

    def close(self) -> None:
        """Does nothing: there is nothing to free."""


class UntilCount:
    """A source with the trials of another one until a number of trials have ended; it measures every so many of them.

    Args:
        source: The controller of the study.
        folder: Folder of the database.
        trials: Number of trials.
        every: Number of trials between two rows.
        on_row: Receives a row.
    """

    def __init__(
        self, source: TimedController, folder: Path, trials: int, every: int, on_row: Callable[[dict[str, float]], None]
    ) -> None:
        self._source, self._folder, self._every, self._on_row = source, folder, every, on_row
        self._left, self._before = trials - source.finished, source.finished
        self._since, self._cpu_since = time.perf_counter(), time.process_time()
        self.on_epoch, self.on_placed = source.on_epoch, source.on_placed

    def next_trial(self) -> TrialSpec | None:
        """Returns a trial unless enough have started."""
        if self._left <= 0:
            return None
        self._left -= 1
        spec: TrialSpec | None = self._source.next_trial()
        return spec

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Forwards an outcome; measures if it is time to."""
        self._source.on_done(spec, outcome)
        if self._source.finished - self._before < self._every:
            return
        count = self._source.finished - self._before
        seconds, cpu = time.perf_counter() - self._since, time.process_time() - self._cpu_since
        self._source.pop_seconds()
        gc.collect()
        self._on_row(
            {
                "trials": self._source.finished,
                "ms": 1e3 * seconds / count,
                "cpu": 1e3 * cpu / count,
                "anonymous": memory_of_process()["anonymous"],
                "files": len(list(Path("/proc/self/fd").iterdir())),
                "threads": threading.active_count(),
                "database": sum(path.stat().st_size for path in self._folder.glob("studies.db*")) / 2**20,
            }
        )
        self._before = self._source.finished
        self._since, self._cpu_since = time.perf_counter(), time.process_time()

    def on_abandoned(self, spec: TrialSpec) -> None:
        """Forwards an abandoned trial."""
        self._left += 1
        self._source.on_abandoned(spec)


def run(work: Path, trials: int, every: int, path: Path) -> None:
    """Runs the search, and stores the rows as they come."""
    from nbt.report.study.write import write_report
    from nbt.tuning.storage.studies import read_study

    work.mkdir(parents=True, exist_ok=True)
    stored = json.loads(path.read_text()) if path.exists() else {}
    result: dict[str, Any] = {"machine": machine(), "every": every, "rows": stored.get("rows", [])}

    def on_row(row: dict[str, float]) -> None:
        result["rows"].append({name: round(value, 3) for name, value in row.items()})
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(result["rows"][-1], flush=True)

    task: Any = None  # nothing is trained
    with (
        open_controller(work, name=STUDY, epochs=EPOCHS) as source,
        LocalEngine(task, workers=WORKERS, runner="soak:SimulatedRunner") as engine,
    ):
        if not source.finished:
            result["rows"].clear()
        source_of_trials: Any = UntilCount(source, work, trials, every, on_row)
        engine.run(source_of_trials)
    started = time.perf_counter()
    record = read_study(f"sqlite:///{work.resolve() / 'studies.db'}", STUDY)
    reading = time.perf_counter() - started
    started = time.perf_counter()
    write_report(record, work / "reports")
    states = {state: sum(trial.state == state for trial in record.trials) for state in ("complete", "pruned", "failed")}
    result |= {"reading": reading, "report": time.perf_counter() - started, "states": states}
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def slope(rows: list[Mapping[str, float]], measure: str) -> tuple[float, float]:
    """Returns the growth per 1,000 trials in the second half of the rows, and half of its 95 % interval."""
    half = rows[len(rows) // 2 :]
    if len({row[measure] for row in half}) == 1:
        return 0.0, 0.0  # the standard error of a constant is undefined in SciPy
    line = linregress([row["trials"] / 1e3 for row in half], [row[measure] for row in half])
    return float(line.slope), float(t.ppf(0.975, len(half) - 2) * line.stderr)


def to_markdown(result: Mapping[str, Any]) -> str:
    """Returns the table of about ten rows, and the slopes."""
    rows = result["rows"]
    shown = rows[:: max(1, len(rows) // 10)]
    shown = shown if shown[-1] is rows[-1] else [*shown, rows[-1]]
    slopes = {name: slope(rows, name) for name in MEASURES}
    counts = ", ".join(f"{count:,} {state}" for state, count in result["states"].items())
    return "\n".join(
        [
            "# A very long search",
            "",
            f"{result['machine']}. {rows[-1]['trials']:,.0f} trials of {EPOCHS} simulated epochs in one search with "
            f"{WORKERS} worker processes: {counts}. Each row is over the {result['every']:,} trials before it.",
            "",
            "| trials | " + " | ".join(MEASURES.values()) + " |",
            "|---|" + "---|" * len(MEASURES),
            *(
                f"| {row['trials']:,.0f} | " + " | ".join(f"{row[name]:.4g}" for name in MEASURES) + " |"
                for row in shown
            ),
            "| per 1,000 trials | " + " | ".join(f"{mean:+.2g} ± {half:.2g}" for mean, half in slopes.values()) + " |",
            "",
            f"Reading the study took {result['reading']:.1f} s, and the report {result['report']:.1f} s.",
            "",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs the search or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=["run", "report"], default="run")
    parser.add_argument("--work", type=Path, help="folder of the study, which is kept")
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=1_000, help="trials per row")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args(arguments)
    path = args.out / "soak.json"
    if args.command == "run":
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        args.out.mkdir(parents=True, exist_ok=True)
        run(args.work, args.trials, args.every, path)
    text = to_markdown(json.loads(path.read_text()))
    (args.out / "soak.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
