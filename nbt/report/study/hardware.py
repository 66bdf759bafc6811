"""Hardware of a study: nodes and GPUs that ran the trials, their utilisation, and lost workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nbt.report.formatting import DASH, TemplateData, duration, join_words, one_line, percent, pluralise
from nbt.report.stored_values import mappings_at
from nbt.tuning.storage.records import StudyRecord, TrialRecord

_MAX_LOST_WORKERS = 8


@dataclass(frozen=True)
class TrialLocation:
    """A GPU of a node, or a node that ran trials on its CPUs.

    Attributes:
        node: Name of the machine; "" if it is unknown.
        gpu: Index of the GPU, or of the GPUs of one trial; "" without a GPU.
    """

    node: str = ""
    gpu: str = ""

    def __str__(self) -> str:
        return ", ".join(part for part in (self.node, self.gpu and f"GPU {self.gpu}") if part) or DASH

    @property
    def order(self) -> tuple[Any, ...]:
        """Sort key, by which GPU 10 comes after GPU 9."""
        return self.node, len(self.gpu), self.gpu


def trial_location(facts: Mapping[str, Any]) -> TrialLocation:
    """Returns the location of a trial from the facts that the engine recorded."""
    return TrialLocation(one_line(str(facts.get("node") or "")), one_line(str(facts.get("gpu_index") or "")))


@dataclass(frozen=True)
class LostWorker:
    """A worker that died, or whose node was lost, while it ran a trial."""

    trial: int
    location: TrialLocation
    reason: str

    def __str__(self) -> str:
        where = "" if self.location == TrialLocation() else f" on {self.location}"
        return f"Trial {self.trial} lost a worker{where}: {self.reason}."


def used_several_locations(trials: Iterable[TrialRecord]) -> bool:
    """Returns whether trials ran in more than one known location."""
    return len({trial_location(trial.facts) for trial in trials} - {TrialLocation()}) > 1


def lost_workers(trials: Iterable[TrialRecord]) -> list[LostWorker]:
    """Returns the lost workers, in the order of the trials."""
    return [
        LostWorker(trial.number, trial_location(item), one_line(str(item.get("reason") or "no reason is known")))
        for trial in trials
        for item in mappings_at(trial.facts, "lost_workers")
    ]


def hardware_section(record: StudyRecord) -> TemplateData:
    """Returns the section on the hardware of a study.

    Its `rows` are the locations, none if all trials ran in one; `lost_workers` has one sentence per lost worker.
    """
    lost = lost_workers(record.trials)
    sentences = [str(worker) for worker in lost[:_MAX_LOST_WORKERS]]
    if len(lost) > _MAX_LOST_WORKERS:
        sentences.append(f"And {len(lost) - _MAX_LOST_WORKERS} more.")
    rows = _location_rows(record, lost) if used_several_locations(record.trials) else ()
    return TemplateData(rows=tuple(rows), lost_workers=tuple(sentences))


def hardware_text(record: StudyRecord) -> str:
    """Returns the devices of a study's trials in one line, e.g. "cpu, float32 on alpha"; "" if they are unknown."""
    with_device = [trial.facts for trial in record.trials if trial.facts.get("device")]
    # For a trial whose worker was lost only the index of the device is known, not its name.
    complete = [facts for facts in with_device if facts.get("precision")] or with_device
    devices = join_words(sorted({_device_text(facts) for facts in complete}))
    where = hardware_summary(record.trials)
    return f"{devices} on {where}" if devices and where else devices


def hardware_summary(trials: Iterable[TrialRecord]) -> str:
    """Returns the number of nodes and GPUs of the trials, or the name of a single one; "" if they are unknown."""
    locations = {trial_location(trial.facts) for trial in trials} - {TrialLocation()}
    nodes, gpus = {location.node for location in locations}, {location for location in locations if location.gpu}
    if not locations:
        return ""
    machines = next(iter(nodes)) if len(nodes) == 1 else pluralise(len(nodes), "node")
    if not gpus:
        return machines
    cards = f"GPU {next(iter(gpus)).gpu}" if len(gpus) == 1 else pluralise(len(gpus), "GPU")
    return f"{cards} of {machines}" if machines else cards


def _device_text(facts: Mapping[str, Any]) -> str:
    device = str(facts.get("gpu") or facts["device"])
    return one_line(f"{device}, {facts['precision']}" if facts.get("precision") else device)


def _location_rows(record: StudyRecord, lost: list[LostWorker]) -> Iterator[TemplateData]:
    by_location: dict[TrialLocation, list[TrialRecord]] = {worker.location: [] for worker in lost}
    for trial in record.trials:
        if trial.facts.get("device") or trial.facts.get("node"):
            by_location.setdefault(trial_location(trial.facts), []).append(trial)
    for location in sorted(by_location, key=lambda location: location.order):
        trials = by_location[location]
        names = {one_line(str(trial.facts["gpu"])) for trial in trials if trial.facts.get("gpu")}
        yield TemplateData(
            node=location.node or DASH,
            gpu=_gpu_text(location, names),
            trials=len(trials),
            epochs=sum(len(trial.curve) for trial in trials),
            training=duration(sum(trial.seconds for trial in trials)),
            utilisation=percent(_busy_seconds(trials) / record.seconds_spent, 0) if record.seconds_spent > 0 else DASH,
            failed=sum(trial.end == "failed" for trial in trials),
            workers_lost=sum(worker.location == location for worker in lost),
        )


def _gpu_text(location: TrialLocation, names: Iterable[str]) -> str:
    if not location.gpu:
        return "CPU" if location.node else DASH
    known = join_words(sorted(names))
    return f"{location.gpu} ({known})" if known else location.gpu


def _busy_seconds(trials: Iterable[TrialRecord]) -> float:
    """Returns the seconds in which at least one of the trials trained.

    A trial is assumed to train without a break before its end.
    """
    spans = sorted(
        # Epochs that a resumed trial trained in an earlier session lie before its start.
        (max(trial.started.timestamp(), trial.finished.timestamp() - trial.seconds), trial.finished.timestamp())
        for trial in trials
        if trial.started is not None and trial.finished is not None
    )
    busy, last = 0.0, float("-inf")
    for begin, end in spans:
        busy += max(0.0, end - max(begin, last))
        last = max(last, end)
    return busy
