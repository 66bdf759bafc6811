"""Places: on which nodes and GPUs the trials ran, how busy those were, and which workers were lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nbt.report.formatting import DASH, duration, join_words, one_line, percent, pluralise
from nbt.tuning.storage.records import StudyRecord, TrialRecord

_MAX_LOST_WORKERS = 8


@dataclass(frozen=True)
class TrialLocation:
    """A GPU of a node, or a node as far as trials ran on its CPUs.

    Attributes:
        node: Name of the machine; "" where it is not known.
        gpu: Number of the GPU, or of several that one trial had; "" without one.
    """

    node: str = ""
    gpu: str = ""

    def __str__(self) -> str:
        return ", ".join(part for part in (self.node, self.gpu and f"GPU {self.gpu}") if part) or DASH

    @property
    def order(self) -> tuple[Any, ...]:
        """What spots are sorted by: GPU 10 after GPU 9."""
        return self.node, len(self.gpu), self.gpu


def trial_location(facts: Mapping[str, Any]) -> TrialLocation:
    """Returns where a trial ran, of what engines say of it."""
    return TrialLocation(one_line(str(facts.get("node") or "")), one_line(str(facts.get("gpu_index") or "")))


@dataclass(frozen=True)
class LostWorker:
    """A worker that died, or whose node was lost, under a trial."""

    trial: int
    location: TrialLocation
    reason: str

    def __str__(self) -> str:
        where = "" if self.location == TrialLocation() else f" on {self.location}"
        return f"Trial {self.trial} lost a worker{where}: {self.reason}."


@dataclass(frozen=True, kw_only=True)
class LocationRow:
    """What ran in one place; `busy` is the share of the search's time in which at least one trial trained there."""

    node: str
    gpu: str
    trials: int
    epochs: int
    training: str
    busy: str
    failed: int
    lost: int


@dataclass(frozen=True, kw_only=True)
class HardwareSection:
    """Where it ran.

    Attributes:
        rows: One a place; empty where it was a single one.
        losses: A sentence on each worker that was lost.
    """

    rows: tuple[LocationRow, ...]
    losses: tuple[str, ...]


def used_several_locations(trials: Iterable[TrialRecord]) -> bool:
    """Tells whether trials ran in more than one place."""
    return len({trial_location(trial.facts) for trial in trials} - {TrialLocation()}) > 1


def lost_workers(trials: Iterable[TrialRecord]) -> list[LostWorker]:
    """Returns the workers that were lost, in the order of the trials."""
    return [loss for trial in trials for loss in _lost_workers_of(trial)]


def hardware_section(record: StudyRecord) -> HardwareSection:
    """Returns where a study's trials ran."""
    lost = lost_workers(record.trials)
    sentences = [str(one) for one in lost[:_MAX_LOST_WORKERS]]
    if len(lost) > _MAX_LOST_WORKERS:
        sentences.append(f"And {len(lost) - _MAX_LOST_WORKERS} more.")
    rows = _location_rows(record, lost) if used_several_locations(record.trials) else ()
    return HardwareSection(rows=tuple(rows), losses=tuple(sentences))


def hardware_text(record: StudyRecord) -> str:
    """Returns on what a study's trials ran in a line, "" where none says so: "cpu, float32 on alpha"."""
    with_device = [trial.facts for trial in record.trials if trial.facts.get("device")]
    # Of a trial whose worker was lost only the number of the device is known, not what it is.
    whole = [facts for facts in with_device if facts.get("precision")] or with_device
    devices = join_words(sorted({_device_text(facts) for facts in whole}))
    where = hardware_summary(record.trials)
    return f"{devices} on {where}" if devices and where else devices


def hardware_summary(trials: Iterable[TrialRecord]) -> str:
    """Returns how many nodes and GPUs trials ran on, or which where it was one; "" where it is not known."""
    spots = {trial_location(trial.facts) for trial in trials} - {TrialLocation()}
    nodes, gpus = {location.node for location in spots}, {location for location in spots if location.gpu}
    if not spots:
        return ""
    machines = next(iter(nodes)) if len(nodes) == 1 else pluralise(len(nodes), "node")
    if not gpus:
        return machines
    cards = f"GPU {next(iter(gpus)).gpu}" if len(gpus) == 1 else pluralise(len(gpus), "GPU")
    return f"{cards} of {machines}" if machines else cards


def _lost_workers_of(trial: TrialRecord) -> list[LostWorker]:
    said = trial.facts.get("lost_workers")
    lost = [one for one in said if isinstance(one, Mapping)] if isinstance(said, list) else []
    return [
        LostWorker(trial.number, trial_location(one), one_line(str(one.get("reason") or "no reason is known")))
        for one in lost
    ]


def _device_text(facts: Mapping[str, Any]) -> str:
    device = str(facts.get("gpu") or facts["device"])
    return one_line(f"{device}, {facts['precision']}" if facts.get("precision") else device)


def _location_rows(record: StudyRecord, lost: list[LostWorker]) -> Iterator[LocationRow]:
    ran: dict[TrialLocation, list[TrialRecord]] = {loss.location: [] for loss in lost}
    for trial in record.trials:
        if trial.facts.get("device") or trial.facts.get("node"):
            ran.setdefault(trial_location(trial.facts), []).append(trial)
    for location in sorted(ran, key=lambda location: location.order):
        trials = ran[location]
        names = {one_line(str(trial.facts["gpu"])) for trial in trials if trial.facts.get("gpu")}
        yield LocationRow(
            node=location.node or DASH,
            gpu=_gpu_text(location, names),
            trials=len(trials),
            epochs=sum(len(trial.curve) for trial in trials),
            training=duration(sum(trial.seconds for trial in trials)),
            busy=percent(_busy_seconds(trials) / record.seconds_spent, 0) if record.seconds_spent > 0 else DASH,
            failed=sum(trial.end == "failed" for trial in trials),
            lost=sum(one.location == location for one in lost),
        )


def _gpu_text(location: TrialLocation, names: Iterable[str]) -> str:
    if not location.gpu:
        return "CPU" if location.node else DASH
    known = join_words(sorted(names))
    return f"{location.gpu} ({known})" if known else location.gpu


def _busy_seconds(trials: Iterable[TrialRecord]) -> float:
    """Returns the seconds in which at least one of the trials trained, counted from their ends."""
    spans = sorted(
        # A trial that was resumed has epochs of an earlier session, too, which is not this time.
        (max(trial.started.timestamp(), trial.finished.timestamp() - trial.seconds), trial.finished.timestamp())
        for trial in trials
        if trial.started is not None and trial.finished is not None
    )
    busy, last = 0.0, float("-inf")
    for begin, end in spans:
        busy += max(0.0, end - max(begin, last))
        last = max(last, end)
    return busy
