"""Places: on which nodes and GPUs the trials ran, how busy those were, and which workers were lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nbt.report.numbers import DASH, duration, one_line, percent, several
from nbt.report.words import joined
from nbt.search.records import StudyRecord, TrialRecord

_SHOWN_LOSSES = 8


@dataclass(frozen=True)
class Spot:
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


def spot_of(facts: Mapping[str, Any]) -> Spot:
    """Returns where a trial ran, of what engines say of it."""
    return Spot(one_line(str(facts.get("node") or "")), one_line(str(facts.get("gpu_index") or "")))


@dataclass(frozen=True)
class Loss:
    """A worker that died, or whose node was lost, under a trial."""

    trial: int
    spot: Spot
    reason: str

    def __str__(self) -> str:
        where = "" if self.spot == Spot() else f" on {self.spot}"
        return f"Trial {self.trial} lost a worker{where}: {self.reason}."


@dataclass(frozen=True, kw_only=True)
class PlaceRow:
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
class PlaceSection:
    """Where it ran.

    Attributes:
        rows: One a place; empty where it was a single one.
        losses: A sentence on each worker that was lost.
    """

    rows: tuple[PlaceRow, ...]
    losses: tuple[str, ...]


def several_places(trials: Iterable[TrialRecord]) -> bool:
    """Tells whether trials ran in more than one place."""
    return len({spot_of(trial.facts) for trial in trials} - {Spot()}) > 1


def losses(trials: Iterable[TrialRecord]) -> list[Loss]:
    """Returns the workers that were lost, in the order of the trials."""
    return [loss for trial in trials for loss in _losses_of(trial)]


def place_section(record: StudyRecord) -> PlaceSection:
    """Returns where a study's trials ran."""
    lost = losses(record.trials)
    sentences = [str(one) for one in lost[:_SHOWN_LOSSES]]
    if len(lost) > _SHOWN_LOSSES:
        sentences.append(f"And {len(lost) - _SHOWN_LOSSES} more.")
    rows = _rows(record, lost) if several_places(record.trials) else ()
    return PlaceSection(rows=tuple(rows), losses=tuple(sentences))


def ran_on(record: StudyRecord) -> str:
    """Returns on what a study's trials ran in a line, "" where none says so: "cpu, float32 on alpha"."""
    with_device = [trial.facts for trial in record.trials if trial.facts.get("device")]
    # Of a trial whose worker was lost only the number of the device is known, not what it is.
    whole = [facts for facts in with_device if facts.get("precision")] or with_device
    devices = joined(sorted({_device(facts) for facts in whole}))
    where = extent(record.trials)
    return f"{devices} on {where}" if devices and where else devices


def extent(trials: Iterable[TrialRecord]) -> str:
    """Returns how many nodes and GPUs trials ran on, or which where it was one; "" where it is not known."""
    spots = {spot_of(trial.facts) for trial in trials} - {Spot()}
    nodes, gpus = {spot.node for spot in spots}, {spot for spot in spots if spot.gpu}
    if not spots:
        return ""
    machines = next(iter(nodes)) if len(nodes) == 1 else several(len(nodes), "node")
    if not gpus:
        return machines
    cards = f"GPU {next(iter(gpus)).gpu}" if len(gpus) == 1 else several(len(gpus), "GPU")
    return f"{cards} of {machines}" if machines else cards


def _losses_of(trial: TrialRecord) -> list[Loss]:
    said = trial.facts.get("lost_workers")
    lost = [one for one in said if isinstance(one, Mapping)] if isinstance(said, list) else []
    return [Loss(trial.number, spot_of(one), one_line(str(one.get("reason") or "no reason is known"))) for one in lost]


def _device(facts: Mapping[str, Any]) -> str:
    device = str(facts.get("gpu") or facts["device"])
    return one_line(f"{device}, {facts['precision']}" if facts.get("precision") else device)


def _rows(record: StudyRecord, lost: list[Loss]) -> Iterator[PlaceRow]:
    ran: dict[Spot, list[TrialRecord]] = {loss.spot: [] for loss in lost}
    for trial in record.trials:
        if trial.facts.get("device") or trial.facts.get("node"):
            ran.setdefault(spot_of(trial.facts), []).append(trial)
    for spot in sorted(ran, key=lambda spot: spot.order):
        trials = ran[spot]
        names = {one_line(str(trial.facts["gpu"])) for trial in trials if trial.facts.get("gpu")}
        yield PlaceRow(
            node=spot.node or DASH,
            gpu=_gpu_text(spot, names),
            trials=len(trials),
            epochs=sum(len(trial.curve) for trial in trials),
            training=duration(sum(trial.seconds for trial in trials)),
            busy=percent(_busy(trials) / record.seconds_spent, 0) if record.seconds_spent > 0 else DASH,
            failed=sum(trial.end == "failed" for trial in trials),
            lost=sum(one.spot == spot for one in lost),
        )


def _gpu_text(spot: Spot, names: Iterable[str]) -> str:
    if not spot.gpu:
        return "CPU" if spot.node else DASH
    known = joined(sorted(names))
    return f"{spot.gpu} ({known})" if known else spot.gpu


def _busy(trials: Iterable[TrialRecord]) -> float:
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
