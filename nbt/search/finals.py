"""Finals: the best few run again with new seeds and splits, as often as their difference needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbt.errors import NbtError, check_counts
from nbt.search import attributes as names
from nbt.search.anchors import DEFAULT_RECIPE, default_recipe
from nbt.search.observers import Observers
from nbt.search.race import Score, Standing, standing, verdict
from nbt.search.reading import difference, read_runs
from nbt.search.records import FinalRecord, SeedRun, StudyObserver, StudyRecord
from nbt.search.store import StudyStore
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialJob, TrialOutcome

CANDIDATES = 3


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A recipe that runs in the finals.

    Attributes:
        name: "trial 12" or "default recipe".
        trial: Number of the trial it came from, None where none ran it.
        settings: The recipe.
    """

    name: str
    trial: int | None
    settings: TransferSettings


def choose_candidates(record: StudyRecord, count: int = CANDIDATES) -> list[Candidate]:
    """Returns the best `count` distinct full-length trials, and the default recipe where it is not among them.

    Diverged trials are no candidates.
    """
    default = default_recipe(record.config.epochs)
    ranked = [trial for trial in record.ranked() if not trial.diverged]
    chosen: list[Candidate] = []
    for trial in ranked:
        if len(chosen) < count and trial.settings not in [candidate.settings for candidate in chosen]:
            name = DEFAULT_RECIPE if trial.settings == default else f"trial {trial.number}"
            chosen.append(Candidate(name=name, trial=trial.number, settings=trial.settings))
    if default not in [candidate.settings for candidate in chosen]:
        number = next((trial.number for trial in ranked if trial.settings == default), None)
        chosen.append(Candidate(name=DEFAULT_RECIPE, trial=number, settings=default))
    return chosen


@dataclass(eq=False)
class _Run:
    candidate: Candidate
    round: int
    curve: list[EpochResult] = field(default_factory=list)


class Finals:
    """The finals of a study as a source of jobs (`nbt.search.engines.base.JobSource`).

    Run i of every candidate has the seed and the train/validation split `study seed + i`, so that differences are
    paired. Every run is stored when it ends; a resumed study repeats none, and when `over` is true on opening there
    was nothing left to run. The decision is stored with the last run.

    Args:
        store: The study, held by this driver.
        seeds: The most runs of one candidate, 1 or more.
        checkpoints: Folder for the checkpoints of running trials; None keeps none.
        observers: Told of every run.
        count: How many of the best trials run beside the default recipe.

    Raises:
        UsageError: `seeds` is below 1.
    """

    def __init__(
        self,
        store: StudyStore,
        *,
        seeds: int = 5,
        checkpoints: Path | None = None,
        observers: Sequence[StudyObserver] = (),
        count: int = CANDIDATES,
    ) -> None:
        check_counts(final_seeds=seeds)
        self._store, self._bound, self._checkpoints = store, seeds, checkpoints
        self._observers = Observers(observers)
        self._candidates = choose_candidates(store.record(), count)
        attributes = store.attributes()
        self._runs = {c.name: self._stored_runs(attributes, c) for c in self._candidates}
        self._failed: dict[str, str] = {}
        self._running: dict[str, _Run] = {}
        self._standing = self._judge()
        if self._standing.over:
            self._decide()
        else:
            done = sum(map(len, self._runs.values()))
            self._observers.finals_started(len(self._candidates) * seeds - done)

    @property
    def over(self) -> bool:
        """Whether nothing is left to run; the study's record then holds finals, recommendation and verdict."""
        return self._standing.over

    def next_job(self) -> TrialJob | None:
        """Returns the next run: all candidates of a seed before the next seed."""
        if self.over:
            return None
        for number in range(1, self._standing.rounds + 1):
            for candidate in self._candidates:
                job = self._job(candidate, number)
                if candidate.name in self._standing.active and not self._has(candidate, number, job):
                    self._running[job.key] = _Run(candidate, number)
                    return job
        return None

    def on_place(self, job: TrialJob, place: Mapping[str, Any]) -> None:
        """Nothing: no result depends on it."""

    def on_epoch(self, job: TrialJob, result: EpochResult) -> str | None:
        """Keeps an epoch; a final run is never stopped."""
        self._running[job.key].curve.append(result)
        return None

    def on_done(self, job: TrialJob, outcome: TrialOutcome) -> None:
        """Stores a run, and decides where it was the last one of a round.

        Raises:
            NbtError: Every candidate failed.
        """
        run = self._running.pop(job.key)
        if outcome.error is not None:
            self._failed[run.candidate.name] = f"a final run failed: {outcome.error}"
            if len(self._failed) == len(self._candidates):
                raise NbtError(f"no final run succeeded; the last one: {outcome.error}")
        else:
            self._keep(run, SeedRun(seed=self._seed(run.round), curve=outcome.curve or tuple(run.curve)))
        self._standing = self._judge()
        if self.over and not self._running:
            self._decide()

    def on_abandoned(self, job: TrialJob) -> None:
        """Forgets a run that the engine gave up; it is handed out again."""
        self._running.pop(job.key)

    def _keep(self, run: _Run, result: SeedRun) -> None:
        key = names.final_key(run.candidate.settings, result.seed)
        self._store.put(key, names.encode_curve(result.curve))
        self._runs[run.candidate.name][run.round] = result
        self._observers.final_run_finished(run.candidate.name, result)

    def _job(self, candidate: Candidate, number: int) -> TrialJob:
        origin = "default" if candidate.name == DEFAULT_RECIPE else f"{candidate.trial:04d}"
        key = f"final-{origin}-seed-{number}"
        return TrialJob(
            key=key,
            settings=candidate.settings,
            seed=self._seed(number),
            split_seed=self._seed(number),
            checkpoint=None if self._checkpoints is None else self._checkpoints / f"{key}.pt",
        )

    def _seed(self, number: int) -> int:
        """Returns seed and split seed of a round; the search itself splits by the study's own seed."""
        return self._store.config.seed + number

    def _has(self, candidate: Candidate, number: int, job: TrialJob) -> bool:
        return number in self._runs[candidate.name] or job.key in self._running

    def _stored_runs(self, attributes: dict[str, object], candidate: Candidate) -> dict[int, SeedRun]:
        first = self._seed(0)
        runs = read_runs(attributes, candidate.settings)
        return {run.seed - first: run for run in runs if 1 <= run.seed - first <= self._bound}

    def _judge(self) -> Standing:
        """Returns the standing over the rounds that each candidate has run without a gap."""
        scores = {}
        for name, runs in self._runs.items():
            length = next((number - 1 for number in range(1, self._bound + 2) if number not in runs), 0)
            scores[name] = [Score(runs[i].val_accuracy, runs[i].val_loss) for i in range(1, length + 1)]
        return standing(scores, default=DEFAULT_RECIPE, bound=self._bound, failed=self._failed)

    def _decide(self) -> None:
        """Stores who ran, who was dropped and who is recommended."""
        leader = self._standing.leader
        if leader is None:
            raise NbtError("no final run succeeded")
        used = {c.name: [run for number, run in sorted(self._runs[c.name].items())] for c in self._candidates}
        default = used.get(DEFAULT_RECIPE, [])
        entries = [
            {
                "name": candidate.name,
                "trial": candidate.trial,
                "settings": candidate.settings.to_dict(),
                "seeds": [run.seed for run in used[candidate.name]],
                "dropped": self._standing.dropped.get(candidate.name, ""),
                "default": candidate.name == DEFAULT_RECIPE,
            }
            for candidate in self._candidates
            if used[candidate.name]
        ]
        entries.sort(key=lambda entry: self._order(str(entry["name"]), leader, used))
        text = verdict(leader, DEFAULT_RECIPE, difference(used[leader], default))
        self._store.put(names.FINALS, {"candidates": entries, "recommended": leader, "verdict": text})

    def _order(self, name: str, leader: str, used: dict[str, list[SeedRun]]) -> tuple[bool, bool, float]:
        """Sorts the recommended first, then those that ran to the end, each by mean accuracy."""
        mean = math.fsum(run.val_accuracy for run in used[name]) / len(used[name])
        return name != leader, name in self._standing.dropped, -mean


def recommended_final(record: StudyRecord) -> FinalRecord:
    """Returns the finalist that a study recommends.

    Raises:
        NbtError: The finals are not over.
    """
    final = record.final(record.recommended) if record.recommended is not None else None
    if final is None:
        raise NbtError(f"study {record.config.name} has no recommendation yet: its finals are not over")
    return final
