"""The campaign: a stratified sample of faults, each in a search of its own, with a resume and all checks."""

from __future__ import annotations

import dataclasses
import importlib
import random
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from faults.checks import (
    check_files,
    check_orphans,
    check_output,
    check_state,
    check_tracking,
    lost_trials,
    state_of,
)
from faults.child import MODULES, checkpoint_every_epoch, count_writing
from faults.kinds import KINDS
from faults.kinds.base import Attempt, Fault
from faults.process import Process
from faults.search import NO_SERVER, OPTIONS, PHASES, STUDY, TASKS, TIMEOUT_SECONDS, Search

# Shares of the attempts whose runs in MLflow are written and checked; that import everything themselves, as a user's
# search does.
_TRACKING_SHARE, _COLD_SHARE = 0.25, 0.5


@dataclasses.dataclass(frozen=True)
class Reference:
    """An undisturbed search, with one worker.

    Attributes:
        state: Its study, see `faults.checks.state_of`.
        phases: Seconds from the start of the process to the start of each phase, and to its end as "end".
        size: Bytes that it has written.
        writes: Number of files that it has opened for writing.
    """

    state: dict[str, Any]
    phases: dict[str, float]
    size: int
    writes: int

    def delay(self, phase: str, share: float) -> float:
        """Returns the seconds from the start of a phase to a share of its duration."""
        times = sorted(self.phases.values())
        start = self.phases[phase]
        return share * (min((t for t in times if t > start), default=start) - start)


class Campaign:
    """Faults in searches below a folder.

    Args:
        folder: Folder of the searches; those without problems are removed.
        seed: Seed of all random choices.
        kinds: Names of the kinds of faults.
    """

    def __init__(self, folder: Path, seed: int, kinds: Sequence[str]) -> None:
        self._folder, self._seed = folder, seed
        self._references: dict[tuple[str, int], Reference] = {}
        self._cold_start: float | None = None
        self.kinds = [kind for kind in KINDS if kind.kind in kinds]
        self.skipped = {kind.kind: reason for kind in self.kinds if (reason := kind.missing()) is not None}
        self.kinds = [kind for kind in self.kinds if kind.kind not in self.skipped]

    def run(self, seconds: float, first: int = 0) -> Iterator[dict[str, Any]]:
        """Yields the row of each attempt, from a number on, until so many seconds have passed."""
        deadline, number = time.monotonic() + seconds, first
        self.warm_up()
        while time.monotonic() < deadline:
            yield self.attempt(number)
            number += 1

    def reference(self, task: str, seed: int) -> Reference:
        """Returns the undisturbed search of a task and seed; it runs at the first call."""
        self.warm_up()
        if (task, seed) not in self._references:
            self._references[task, seed] = self._run_reference(task, seed)
        return self._references[task, seed]

    def attempt(self, number: int) -> dict[str, Any]:
        """Runs one attempt and returns its row."""
        rng = random.Random(f"{self._seed}-{number}")
        kind = self._draw_kind(number)
        fault = kind()
        task, seed, workers = rng.choice(TASKS), rng.choice(list(OPTIONS)), rng.choice(kind.workers)
        reference = self.reference(task, seed)
        phase = kind.phases[self._round(number) % len(kind.phases)]
        search = Search(self._folder / f"try-{number:04d}", task, seed, workers=workers, engine=kind.engine)
        delay = reference.delay(phase, rng.random())
        started = time.monotonic()
        try:
            attempt = Attempt(fault.adapt(search), phase, delay, rng, reference.size, reference.writes)
            hit, codes, problems = self._try(fault, attempt, reference)
        except Exception as error:  # one attempt must not end the campaign
            hit, codes, problems = True, [], [f"the attempt failed: {' '.join(str(error).split())[-300:]}"]
        finally:
            fault.close()
        if not problems:
            search.remove()
        return {
            "seed": self._seed,
            "try": number,
            "kind": kind.kind,
            "phase": phase,
            "task": task,
            "search_seed": seed,
            "workers": workers,
            "hit": hit,
            "codes": codes,
            "problems": problems,
            "seconds": round(time.monotonic() - started, 1),
        }

    def _draw_kind(self, number: int) -> type[Fault]:
        """Returns the kind of an attempt: in each round, every kind has as many attempts as its goal."""
        names = [kind for kind in self.kinds for _ in range(kind.goal)]
        order = random.Random(f"{self._seed}-order-{number // len(names)}").sample(names, len(names))
        return order[number % len(names)]

    def _round(self, number: int) -> int:
        """Returns how many attempts of the same kind came before, offset by the seed."""
        kind = self._draw_kind(number)
        return self._seed + sum(self._draw_kind(earlier) is kind for earlier in range(number))

    def _try(self, fault: Fault, attempt: Attempt, reference: Reference) -> tuple[bool, list[int | None], list[str]]:
        """Injects a fault and resumes; returns whether it met the search, the exit codes, and the problems."""
        search, rng = attempt.search, attempt.rng
        search.prepare()
        tracked = rng.random() < _TRACKING_SHARE
        if not tracked:
            search.options[:] = ["--tracking-uri", NO_SERVER]
        fault.arrange(attempt)
        try:
            setup = fault.setup(attempt)
            cold = setup is None and attempt.phase == "start" and fault.phases == PHASES and rng.random() < _COLD_SHARE
            if cold:
                attempt = dataclasses.replace(attempt, delay=rng.random() * (self._cold_start or 0.0))
            often = checkpoint_every_epoch if rng.random() < 0.5 else None
            process = search.run("first", setup=_both(often, setup), fork=not cold)
            hit = _reach(attempt, process) and fault.inject(attempt, process)
            process.wait(TIMEOUT_SECONDS)
            problems = check_output(process, fault.codes) + fault.problems(attempt, process) + check_orphans(search)
            problems += fault.restore(attempt)
            before = state_of(search) if search.exists else None
            resumed = dataclasses.replace(search, engine="local").run("resumed")
            resumed.wait(TIMEOUT_SECONDS)
            problems += check_output(resumed, (0,)) + check_orphans(search)
            if resumed.code == 0:
                problems += _check(search, before, reference, tracked=tracked)
                problems += fault.finished(attempt)
        finally:
            unmount(search.folder)
        return hit, [process.code, resumed.code], problems

    def warm_up(self) -> Search:
        """Runs a search as a user does, imports here what it has imported, and returns it."""
        search = Search(self._folder / "warm-up", TASKS[0], 1)
        if self._cold_start is not None:
            return search
        search.prepare()
        search.environment[MODULES] = str(search.folder / "modules")
        process = search.run("first", fork=False)
        if process.wait(TIMEOUT_SECONDS) != 0:
            raise RuntimeError(f"the search of the warm-up failed: {process.errors[-2000:]}")
        self._cold_start = process.marks()[0][1] - process.started
        for name in (search.folder / "modules").read_text().split():
            with suppress(Exception):
                importlib.import_module(name)
        shutil.copy(search.work / ".nbt" / "mlflow.db", self._folder / "mlflow.db")
        _empty_runs(self._folder / "mlflow.db")
        return search

    def _run_reference(self, task: str, seed: int) -> Reference:
        search = Search(self._folder / f"reference-{task}-{seed}", task, seed)
        search.prepare()
        process = search.run("first", setup=partial(count_writing, str(search.folder)))
        process.wait(TIMEOUT_SECONDS)
        ended = time.time() - process.started
        state = state_of(search)
        if state is None or (problems := check_output(process, (0,)) + _check(search, None, None, tracked=True)):
            raise RuntimeError(f"the undisturbed search failed: {problems} {process.errors[-2000:]}")
        phases = {"start": 0.0}
        for phase, moment in process.marks():
            phases.setdefault(phase, moment - process.started)
        files = [path for path in search.folder.rglob("*") if path.is_file() and "logs" not in path.parts]
        writes = int((search.folder / "logs" / "writes").read_text())
        return Reference(state, {**phases, "end": ended}, sum(path.stat().st_size for path in files), writes)


def _both(first: Callable[[], None] | None, second: Callable[[], None] | None) -> Callable[[], None]:
    def setup() -> None:
        for function in (first, second):
            if function is not None:
                function()

    return setup


def _reach(attempt: Attempt, process: Process) -> bool:
    """Waits for the moment of an attempt; returns whether the process has reached its phase."""
    if attempt.phase != "start" and not process.wait_for_phase(attempt.phase, TIMEOUT_SECONDS):
        return False
    time.sleep(attempt.delay)
    return True


def _check(search: Search, before: dict[str, Any] | None, reference: Reference | None, *, tracked: bool) -> list[str]:
    """Returns the problems of a finished search; `tracked` also compares it with its runs in MLflow."""
    after = state_of(search)
    expected = reference.state if reference is not None and search.workers == 1 else None
    problems = check_state(search, after, expected) + check_files(search)
    if after is not None:
        problems += lost_trials(before, after)
    if tracked:
        syncs = []
        for name in ("sync", "sync-again"):
            syncs.append(search.run(name, ("sync", STUDY, "--json", *search.storage_options)))
            syncs[-1].wait(TIMEOUT_SECONDS)
        problems += check_tracking(search, *syncs)
    return problems


def _empty_runs(file: Path) -> None:
    """Removes the experiments of a database of MLflow but the default one; its tables stay."""
    with closing(sqlite3.connect(file)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in tables:
            if name not in ("alembic_version", "experiments") and not name.startswith("sqlite_"):
                connection.execute(f"DELETE FROM {name}")
        connection.execute("DELETE FROM experiments WHERE experiment_id != 0")
        connection.commit()


def unmount(folder: Path) -> None:
    """Unmounts a folder if something is mounted on it."""
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
