"""Benchmark: how long does a user wait before the first trial, after Ctrl-C, and when a search is resumed?

Every measurement is `nbt search` in a process of its own, on the embedded digits:

- first trial: from the command to the first trial, with empty caches; then of a second search on the same images
  (another study), which reuses decoded images, fit profile and frozen features. The time of `import torch` alone, in a
  process of its own, is subtracted.
- Ctrl-C: from the signal to the end of the process, one second after the command, at the first trial, in the trials and
  in the final runs.
- resume: from the command to the first epoch of a search that was interrupted in its trials.

    python studies/bench_startup.py --rounds 3

Results: `studies/results/bench_startup.{json,md}`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
SEARCH = ("search", "--dataset", "digits", "--budget", "6", "-q")
EVENTS = ("trial_started", "epoch_finished", "finals_started")
INTERRUPTS = {"trial_started": 1, "epoch_finished": 10, "finals_started": 1}
"""Events at which a search is interrupted, and how often they must have happened."""

START_GOAL, INTERRUPT_GOAL, RESUME_GOAL = 3.0, 3.0, 5.0
_POLL_SECONDS = 0.02


def main() -> None:
    """Measures, or runs one search whose events are noted."""
    if sys.argv[1:2] == ["child"]:
        noted_search(Path(sys.argv[2]), sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="number of repetitions, whose median is reported")
    rounds = [measure() for _ in range(parser.parse_args().rounds)]
    from machine import machine

    facts = {"machine": machine(), "load": round(os.getloadavg()[0], 1), "rounds": rounds}
    (RESULTS / "bench_startup.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "bench_startup.md").write_text(report(facts), encoding="utf-8")


def noted_search(events: Path, arguments: list[str]) -> None:
    """Runs a command line of nbt, and writes the time of each event of its search to a file."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the benchmark runs in the background
    from nbt.cli import main as run
    from nbt.display.search_progress import SearchProgress

    def noting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def note(*values: Any) -> Any:
            with events.open("a", encoding="utf-8") as file:
                file.write(f"{name} {time.time()} {time.process_time()}\n")
            return method(*values)

        return note

    for name in EVENTS:
        setattr(SearchProgress, name, noting(name, getattr(SearchProgress, name)))
    sys.argv[1:] = arguments
    run()


class Search:
    """A running search.

    Args:
        folder: Its working folder, which also has its cache.
        *options: Further options of `nbt search`.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._events = folder / f"events-{time.time_ns()}"
        environment = {**os.environ, "NBT_CACHE": str(folder / "cache"), "PYTHONPATH": str(HERE.parent)}
        self.started = time.time()
        self.process = subprocess.Popen(
            [sys.executable, __file__, "child", str(self._events), *SEARCH, *options],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait_for(self, event: str, count: int = 1) -> tuple[float, float]:
        """Waits until an event has happened `count` times.

        Returns:
            Seconds since the command, and CPU seconds of its process without its workers.

        Raises:
            RuntimeError: The search ended before.
        """
        while True:
            ended = self.process.poll() is not None
            lines = self._events.read_text().splitlines() if self._events.exists() else []
            times = [line.split()[1:] for line in lines if line.startswith(f"{event} ")]
            if len(times) >= count and len(times[count - 1]) == 2:
                clock, cpu = map(float, times[count - 1])
                return clock - self.started, cpu
            if ended:
                raise RuntimeError(f"the search ended with exit code {self.process.returncode} before {event}")
            time.sleep(_POLL_SECONDS)

    def interrupt(self) -> float:
        """Sends Ctrl-C, and returns the seconds until the process has ended.

        Raises:
            RuntimeError: The exit code is not 130.
        """
        sent = time.perf_counter()
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait()
        seconds = time.perf_counter() - sent
        if code != 130:
            raise RuntimeError(f"exit code {code} after Ctrl-C")
        return seconds


def measure() -> dict[str, float]:
    """Returns one measurement of everything in seconds."""
    seconds = dict(zip(("import", "import, CPU"), import_seconds(), strict=True))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cold = Search(folder, "--study", "cold")
        seconds["first, empty caches"], _ = cold.wait_for("trial_started")
        if cold.process.wait() != 0:
            raise RuntimeError("the first search failed")
        starting = Search(folder, "--study", "starting")
        time.sleep(1.0)
        seconds["interrupt, start"] = starting.interrupt()
        for event, count in INTERRUPTS.items():
            search = Search(folder, "--study", event)
            if event == "trial_started":
                seconds["first, warm caches"], seconds["first, warm caches, CPU"] = search.wait_for(event)
            search.wait_for(event, count)
            seconds[f"interrupt, {event}"] = search.interrupt()
        resumed = Search(folder, "--study", "epoch_finished")
        seconds["resume"], seconds["resume, CPU"] = resumed.wait_for("epoch_finished")
        resumed.interrupt()
    return seconds


def import_seconds() -> tuple[float, float]:
    """Returns the seconds and the CPU seconds of a process that imports PyTorch."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(facts: dict[str, Any]) -> str:
    """Returns the report, with medians over the rounds and the largest values."""
    rounds = facts["rounds"]

    def row(what: str, name: str, goal: float | None = None, without: str | None = None) -> str:
        values = [entry[name] - (entry[without] if without else 0.0) for entry in rounds]
        limit = "" if goal is None else f"<= {goal:g}{'' if median(values) <= goal else ': missed'}"
        return f"| {what} | {median(values):.1f} | {max(values):.1f} | {limit} |"

    return "\n".join(
        [
            "# Start, Ctrl-C and resume",
            "",
            f"`nbt {' '.join(SEARCH)}`, {len(rounds)} rounds; {facts['machine']}; load of the machine at the end "
            f"{facts['load']}. `studies/bench_startup.py` describes the measurements.",
            "",
            "| seconds | median | maximum | goal |",
            "|---|---|---|---|",
            row("`import torch`, a process of its own", "import"),
            row("command to first trial, empty caches", "first, empty caches"),
            row("command to first trial, warm caches", "first, warm caches"),
            row("... without the import of PyTorch", "first, warm caches", START_GOAL, "import"),
            row("Ctrl-C one second after the command", "interrupt, start", INTERRUPT_GOAL),
            row("Ctrl-C at the first trial", "interrupt, trial_started", INTERRUPT_GOAL),
            row("Ctrl-C in the trials", "interrupt, epoch_finished", INTERRUPT_GOAL),
            row("Ctrl-C in the final runs", "interrupt, finals_started", INTERRUPT_GOAL),
            row("command to first new epoch of a resumed search", "resume", RESUME_GOAL),
            row("CPU seconds of `import torch`", "import, CPU"),
            row(
                "CPU seconds to the first trial, warm caches, without that",
                "first, warm caches, CPU",
                None,
                "import, CPU",
            ),
            row("CPU seconds to the first new epoch of a resumed search", "resume, CPU"),
            "",
        ]
    )


if __name__ == "__main__":
    main()
