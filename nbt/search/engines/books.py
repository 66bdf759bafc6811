"""Books: which jobs are on their way to a cluster, who runs them, and what becomes of them. It knows no Ray."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbt.search.engines.base import JobSource
from nbt.search.engines.messages import Order, Place, Said
from nbt.search.engines.packing import Packing
from nbt.training.model_folder import replacing
from nbt.training.results import EpochResult, TrialJob, TrialOutcome

_log = logging.getLogger("nbt")


@dataclass(frozen=True)
class Answer:
    """What a run does next.

    Attributes:
        over: It is at its end: nobody waits for more of it.
        reason: Why it must stop; None to go on.
        retire: Its worker is of no more use.
    """

    over: bool = False
    reason: str | None = None
    retire: bool = False


@dataclass(eq=False)
class _Run:
    """A job on its way.

    Attributes:
        job: What it runs.
        slot: Number of its worker.
        attempt: Name of the attempt that runs it; None while it waits for one.
        said: Its epochs, each with the source's answer.
        deaths: Workers that it has cost.
        place: Where it runs, once that is known.
        resources: What it asks for.
        lost: The workers that it has lost: where each was, and the reason.
    """

    job: TrialJob
    slot: int
    attempt: str | None = None
    said: dict[int, tuple[EpochResult, str | None]] = field(default_factory=dict)
    deaths: int = 0
    place: Place | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    lost: list[dict[str, Any]] = field(default_factory=list)

    @property
    def where(self) -> dict[str, Any]:
        return {} if self.place is None else self.place.facts()

    @property
    def curve(self) -> tuple[EpochResult, ...]:
        return tuple(self.said[epoch][0] for epoch in sorted(self.said))


class Books:
    """The driver's side of all runs: every call to the source, and every file that the driver keeps.

    A job may need several attempts: one whose worker dies runs once more, one whose node is lost as often as it takes,
    each from the newest checkpoint that arrived here. The source notices nothing: it is asked once about every epoch.

    Args:
        workers: Jobs at a time.
        packing: What a run asks for.
    """

    def __init__(self, workers: int, packing: Packing | None = None) -> None:
        self.at_a_time = workers
        self._packing = packing or Packing({})
        self._source: JobSource | None = None
        self._runs: list[_Run] = []
        self._ask_again = False
        self._warnings: set[str] = set()

    @property
    def over(self) -> bool:
        """Whether nothing runs and the source has no more."""
        return not self._runs and not self._ask_again

    def open(self, source: JobSource) -> None:
        """Begins to run the jobs of a source."""
        self._source, self._ask_again = source, True

    def next_order(self, attempt: str) -> Order | None:
        """Returns what a new attempt is to run, None where there is nothing now."""
        run = next((run for run in self._runs if run.attempt is None), None) or self._new_run()
        if run is None:
            return None
        run.attempt, run.place, run.resources = attempt, None, self._packing.current()
        return Order(run.job, _read(run.job.checkpoint), run.resources, run.slot)

    def hear(self, attempt: str, said: Said) -> Answer:
        """Takes what an attempt says; of one that was given up nobody wants to hear."""
        self._log(said)
        run = self._find(attempt)
        if run is None:
            return Answer(over=True)
        if said.place not in (Place(), run.place):
            assert self._source is not None
            run.place = said.place
            self._source.on_place(run.job, run.where)
        if said.checkpoint is not None and run.job.checkpoint is not None:
            _write(run.job.checkpoint, said.checkpoint)
        if said.epoch is not None:
            return Answer(reason=self._answer(run, said.epoch))
        assert said.outcome is not None
        self._end(run, said, said.outcome)
        # One that has run out of memory keeps what it took, and one without tools would fail at the next run, too.
        return Answer(over=True, retire=said.broken or said.outcome.out_of_memory)

    def _log(self, said: Said) -> None:
        """Logs what a worker has logged, of warnings that several workers give only the first."""
        for level, text in said.logs:
            if level != logging.WARNING or text not in self._warnings:
                _log.log(level, "%s", text)
            if level == logging.WARNING:
                self._warnings.add(text)

    def lose(self, attempt: str, reason: str, *, node_lost: bool = False) -> None:
        """Takes the end of a worker. The loss of a whole node is not held against the job that it ran."""
        run = self._find(attempt)
        if run is not None:
            self._retry(run, reason, 0 if node_lost else 1)

    def lose_all(self, reason: str) -> None:
        """Takes the end of all workers, for which no job is to blame."""
        for run in [run for run in self._runs if run.attempt is not None]:
            self._retry(run, reason, 0)

    def give_up(self) -> None:
        """Abandons what runs."""
        source, runs = self._source, self._runs
        self._source, self._runs, self._ask_again = None, [], False
        for run in runs:
            try:
                assert source is not None
                source.on_abandoned(run.job)
            except Exception as error:  # it must not hide the error that is the reason for all this
                _log.warning("%s could not be marked as abandoned: %s", run.job.key, error)

    def _new_run(self) -> _Run | None:
        """Asks the source for a job. An answer of None holds until a run has ended."""
        if self._source is None or not self._ask_again or len(self._runs) >= self._packing.at_a_time(self.at_a_time):
            return None
        job = self._source.next_job()
        if job is None:
            self._ask_again = False
            return None
        taken = {run.slot for run in self._runs}
        run = _Run(job, min(slot for slot in range(len(taken) + 1) if slot not in taken))
        self._runs.append(run)
        return run

    def _find(self, attempt: str) -> _Run | None:
        return next((run for run in self._runs if run.attempt == attempt), None)

    def _answer(self, run: _Run, result: EpochResult) -> str | None:
        """Asks the source once for every epoch: a job that runs again repeats epochs that it has heard of."""
        if result.epoch not in run.said:
            assert self._source is not None
            run.said[result.epoch] = (result, self._source.on_epoch(run.job, result))
        return run.said[result.epoch][1]

    def _end(self, run: _Run, said: Said, outcome: TrialOutcome) -> None:
        if outcome.out_of_memory and self._shares_device(run):
            self._packing.learn(outcome.facts)  # it takes at least what it had
            self._put_back(run, self._back_off(run))
        elif said.broken:
            self._take_broken(run, said, outcome)
        else:
            if said.export is not None and run.job.export is not None:
                _write_model(run.job.export, said.export)
            if outcome.error is None and run.job.checkpoint is not None:
                _forget(run.job.checkpoint)
            self._finish(run, outcome)

    def _take_broken(self, run: _Run, said: Said, outcome: TrialOutcome) -> None:
        """Does without a worker that could not be set up where others could: a broken GPU would fail job after job."""
        host = f" on {said.place.host}" if said.place.host else ""
        reason = f"a worker could not be set up{host} ({outcome.error})"
        if any(other.place is not None for other in self._runs if other is not run):
            self.at_a_time -= 1
            self._put_back(run, f"{reason}: going on with {self.at_a_time} at a time")
        else:
            self._retry(run, reason, 1)

    def _retry(self, run: _Run, reason: str, deaths: int) -> None:
        run.deaths += deaths
        run.attempt = None
        run.lost.append({**run.where, "reason": reason})
        if run.deaths < 2:
            _log.warning("%s: %s; running it again", run.job.key, reason)
        else:
            self._finish(run, TrialOutcome(curve=run.curve, error=reason))

    def _finish(self, run: _Run, outcome: TrialOutcome) -> None:
        self._runs.remove(run)
        self._ask_again = True
        if outcome.error is None:
            self._packing.learn(outcome.facts)
        assert self._source is not None
        facts = {**run.where, **outcome.facts, "worker": run.slot}
        if run.lost:
            facts["lost_workers"] = run.lost
        self._source.on_done(run.job, dataclasses.replace(outcome, facts=facts))

    def _shares_device(self, run: _Run) -> bool:
        """Tells whether other runs may hold the memory that this one lacked."""
        if run.resources.get("GPU", 0.0) >= 1.0:
            return False
        others = [other for other in self._runs if other is not run and other.attempt is not None]
        return any(run.place is None or run.place.shares_memory(other.place) for other in others)

    def _back_off(self, run: _Run) -> str:
        """Lets fewer run where one ran out of memory; returns that in words."""
        where = f"{run.place.device} of {run.place.host}" if run.place is not None else "a device"
        if self._packing.back_off(run.resources):
            return f"out of memory on {where}: going on with {self._packing.current()['GPU']:.2g} of a GPU for each"
        self.at_a_time -= 1
        return f"out of memory on {where}: going on with {self.at_a_time} at a time"

    def _put_back(self, run: _Run, why: str) -> None:
        """Gives a job back to the source."""
        self._runs.remove(run)
        self._ask_again = True
        _log.warning("%s", why)
        assert self._source is not None
        self._source.on_abandoned(run.job)


def _read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except FileNotFoundError:
        return None


def _forget(path: Path) -> None:
    """Removes a checkpoint, and what a worker of this machine left beside it in an earlier session."""
    for found in path.parent.glob(f"{path.name}*"):
        found.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    """Writes a file to a temporary name and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_model(folder: Path, files: Mapping[str, bytes]) -> None:
    with replacing(folder) as place:
        for name, content in files.items():
            (place / name).write_bytes(content)
