"""StudyRecord: a study as plain data, read from the one truth (the storage) for reports and MLflow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, best_epoch
from nbt.tuning.intervals import Interval

# Of the facts of a trial.
FORECAST = "forecast"

INTERRUPTED = "interrupted: the search ended before the trial did"
"""Reason of a failed trial that is none: a later search goes on with it, as another trial."""

TRIAL_STATUSES = ("complete", "pruned", "failed", "interrupted", "running")
"""How trials are counted, see `TrialRecord.end`."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What defines a study: two studies that differ in one of these are different studies.

    Attributes:
        name: Name of the study.
        dataset: As the user named it (a folder as its absolute path).
        backbone: Canonical text, e.g. "mobilenet_v2(width_mult=0.35)".
        weights: "default", "none" or the absolute path of a file.
        space: Name of the search space (a file as its absolute path).
        space_hash: Hash of what the space says.
        data_hash: `Task.fingerprint`.
        weights_hash: Fingerprint of w0.
        image_size: Pixels.
        epochs: Length of a full trial; of all tasks together where it is a stream.
        seed: Of splits, sampler and trials.
        data_dir: Where the dataset was read from, if the user said so.
        classes: `--classes`, if given.
        shots: `--shots`, if given.
        teacher: `--teacher`, if given.
        teacher_hash: Fingerprint of its weights.
        scenario: `--scenario`, if given: every trial learns a stream of tasks.
        tasks: Length of the stream; 1 without one.
    """

    name: str
    dataset: str
    backbone: str
    weights: str
    space: str
    space_hash: str
    data_hash: str
    weights_hash: str
    image_size: int
    epochs: int
    seed: int
    data_dir: str | None = None
    classes: int | None = None
    shots: int | None = None
    teacher: str | None = None
    teacher_hash: str | None = None
    scenario: str | None = None
    tasks: int = 1

    def per_task_settings(self, settings: TransferSettings) -> TransferSettings:
        """Returns a trial's settings as commands take them: `epochs` are those of one task."""
        return settings.replace(epochs=settings.epochs // self.tasks)


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial of the search.

    Attributes:
        number: 0, 1, 2 ... in the study.
        state: "complete" (full length), "pruned", "failed" or "running", as the storage has it; see `end`.
        settings: The repaired recipe that was run.
        origin: Where the settings came from: "anchor: linear probe", "sampler".
        curve: Its epochs; of one that goes on with an interrupted trial, those of that one first.
        trained: Epochs that it cost: those that an interrupted trial trained before it are not among them, those of
            attempts that were lost are. As many as its curve has where it is None.
        reason: Why it was pruned or failed, else "".
        started: UTC.
        finished: UTC, None while it runs.
        facts: Where it ran, as `nbt.tuning.engines.distributed.protocol.Place.facts` says; worker, GPU, precision, set-up seconds,
            peak memory; workers that it lost; what the fit pruner forecast, see `forecast`.
    """

    number: int
    state: str
    settings: TransferSettings
    origin: str = "sampler"
    curve: tuple[EpochResult, ...] = ()
    trained: int | None = None
    reason: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> EpochResult | None:
        """The kept epoch."""
        return best_epoch(self.curve)

    @property
    def val_accuracy(self) -> float | None:
        """Validation accuracy of the kept epoch, 0 ... 1; 0 where the trial diverged."""
        if self.diverged:
            return 0.0
        return None if self.best is None else self.best.val_accuracy

    @property
    def val_loss(self) -> float | None:
        """Validation loss of the kept epoch."""
        return None if self.best is None else self.best.val_loss

    @property
    def diverged(self) -> bool:
        """Whether the loss left the finite numbers: a result with the worst accuracy."""
        return bool(self.curve) and self.curve[-1].diverged

    @property
    def end(self) -> str:
        """How it ended, one of `TRIAL_STATUSES`: its state, but of a failed trial that was interrupted "interrupted"."""
        return trial_status(self.state, self.reason)

    @property
    def forecast(self) -> Mapping[str, Any] | None:
        """What the fit pruner expected of it, see `nbt.tuning.pruners.fit_pruner.FitPruner.forecast`; None without one."""
        stored = self.facts.get(FORECAST)
        return stored if isinstance(stored, Mapping) else None

    @property
    def seconds(self) -> float:
        """Training time."""
        return sum(result.seconds for result in self.curve)

    @property
    def epochs_spent(self) -> int:
        """Epochs that it cost; those of all trials are what a study has spent."""
        return len(self.curve) if self.trained is None else self.trained


@dataclass(frozen=True, kw_only=True)
class FinalRun:
    """One final run of a candidate: a new seed and a new train/validation split."""

    seed: int
    curve: tuple[EpochResult, ...]

    @property
    def val_accuracy(self) -> float:
        """Validation accuracy of the kept epoch, 0 ... 1; 0 where it diverged."""
        best = best_epoch(self.curve)
        if best is None or best.val_accuracy is None or self.curve[-1].diverged:
            return 0.0
        return best.val_accuracy

    @property
    def val_loss(self) -> float:
        """Validation loss of the kept epoch; infinite where it diverged."""
        best = best_epoch(self.curve)
        return math.inf if best is None or best.val_loss is None else best.val_loss


@dataclass(frozen=True, kw_only=True)
class FinalRecord:
    """A candidate that was run again with new seeds and splits.

    Attributes:
        name: "trial 12" or "default recipe".
        trial: Number of the trial it came from; None for the default recipe where no trial ran it.
        settings: Its recipe.
        runs: One a seed; candidates share seeds, so that differences are paired.
        validation: Mean validation accuracy with its interval over the runs.
        versus_default: Paired difference to the default recipe, in accuracy; None for the default recipe itself.
        dropped: Why it got fewer seeds than others, else "".
    """

    name: str
    trial: int | None
    settings: TransferSettings
    runs: tuple[FinalRun, ...]
    validation: Interval
    versus_default: Interval | None = None
    dropped: str = ""


@dataclass(frozen=True, kw_only=True)
class TestRecord:
    """The one evaluation on test images of a model trained on train + validation.

    Attributes:
        name: "recommended" or "baseline".
        accuracy: 0 ... 1, with its binomial (Wilson) 95 % interval over the images.
        loss: Mean cross-entropy in nats.
        n: Number of test images.
    """

    __test__ = False  # not a test class, whatever pytest thinks of its name

    name: str
    accuracy: Interval
    loss: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A whole study.

    Attributes:
        config: What defines it.
        dataset: Facts: classes, images in each split, image size, standard error of validation ...
        budget: As the user wrote it: "20", "30m", "2h".
        epochs_budget: Training epochs that the budget allows; None for a budget in time.
        epochs_spent: Training epochs of all trials, pruned and failed ones included, finals not.
        seconds_spent: Wall-clock seconds of the search, finals not included.
        pruner: "fit", "asha" or "none".
        trials: In order of their numbers.
        finals: Best first; empty before the finals.
        recommended: Name of the recommended candidate among `finals`; None before the finals.
        verdict: One sentence: how the recommendation compares to the default recipe.
        test: Recommended and baseline; empty before the test evaluation of this recommendation.
        test_evaluations: How often the test split was looked at in this study (once a finished search).
        importance: Dimension -> share of the variance of accuracy it explains (PED-ANOVA), full trials only.
        noise: Standard error of one validation accuracy at the best trial's accuracy.
        notes: What else a reader must know, e.g. images left out.
        created: UTC.
        profile: How well the pretrained weights fit, as `FitProfile.to_dict` returns it; None where it is not known.
        guide: What was expected of settings beforehand and what the trials made of it, see `nbt.tuning.prior_diagnostics`; empty
            where nothing guided the search.
    """

    config: StudyConfig
    dataset: Mapping[str, Any]
    budget: str
    epochs_budget: int | None
    epochs_spent: int
    seconds_spent: float
    pruner: str
    trials: Sequence[TrialRecord]
    finals: Sequence[FinalRecord] = ()
    recommended: str | None = None
    verdict: str = ""
    test: Sequence[TestRecord] = ()
    test_evaluations: int = 0
    importance: Mapping[str, float] = field(default_factory=dict)
    noise: float | None = None
    notes: Sequence[str] = ()
    created: datetime | None = None
    profile: Mapping[str, Any] | None = None
    prior_diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def ranked(self) -> list[TrialRecord]:
        """Returns the full-length trials, best first; see `rank_trials`."""
        return rank_trials(self.trials, self.noise or 0.0)

    def final(self, name: str) -> FinalRecord | None:
        """Returns the finalist of that name."""
        return next((final for final in self.finals if final.name == name), None)

    def counts(self) -> dict[str, int]:
        """Returns how many trials ended in each way, those of `TRIAL_STATUSES`."""
        return count_statuses(trial.end for trial in self.trials)


def trial_status(state: str, reason: str) -> str:
    """Returns how a trial with some state and reason ended, one of `TRIAL_STATUSES`."""
    return "interrupted" if state == "failed" and reason == INTERRUPTED else state


def count_statuses(ends: Iterable[str]) -> dict[str, int]:
    """Returns how often each of `TRIAL_STATUSES` is among some."""
    counts = Counter(ends)
    return {end: counts[end] for end in TRIAL_STATUSES}


def rank_trials(trials: Sequence[TrialRecord], noise: float) -> list[TrialRecord]:
    """Orders full-length trials, best first.

    Trials within one standard error (`noise`, in accuracy) of the best accuracy cannot be told apart by it: they come
    first, in the order of their validation loss. The others follow by accuracy.
    """
    full = [trial for trial in trials if trial.state == "complete" and trial.val_accuracy is not None]
    if not full:
        return []
    best = max(trial.val_accuracy or 0.0 for trial in full)

    def key(trial: TrialRecord) -> tuple[bool, float, float]:
        accuracy = trial.val_accuracy or 0.0
        loss = trial.val_loss if trial.val_loss is not None and not trial.diverged else math.inf
        is_tied = accuracy >= best - noise
        return (not is_tied, loss, -accuracy) if is_tied else (True, -accuracy, loss)

    return sorted(full, key=key)


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """A line in the list of studies.

    Attributes:
        name: Of the study.
        dataset: As the user named it.
        backbone: Canonical text.
        space: Name of the search space, or the path of its file.
        budget: As the user wrote it.
        trials: How many trials ended in each state, see `StudyRecord.counts`.
        best: Highest validation accuracy of a full-length trial, 0 ... 1; None before there is one.
        finished: Whether what it recommends has its test evaluation.
        created: UTC.
    """

    name: str
    dataset: str
    backbone: str
    space: str
    budget: str
    trials: Mapping[str, int]
    best: float | None
    finished: bool
    created: datetime | None


class StudyObserver:
    """Base class of observers of a study, such as the progress display and the MLflow tracker.

    Every method does nothing unless it is overridden.
    """

    def study_started(self, record: StudyRecord) -> None:
        """Called when the study has been opened or resumed, before any trial runs."""

    def trial_started(self, number: int, settings: TransferSettings, origin: str) -> None:
        """Called when a trial has been assigned to a worker.

        Args:
            number: Number of the trial.
            settings: Settings of the trial.
            origin: Origin of the settings, see `TrialRecord`.
        """

    def trial_placed(self, number: int, location: Mapping[str, Any]) -> None:
        """Called when it is known where a trial runs, and again if it moves.

        Args:
            number: Number of the trial.
            location: The known ones of "node", "device" and "gpu_index".
        """

    def epoch_finished(self, number: int, result: EpochResult, epochs_spent: int) -> None:
        """Called after every epoch of a trial.

        Args:
            number: Number of the trial.
            result: Result of the epoch.
            epochs_spent: Epochs that all trials of the study have spent.
        """

    def trial_finished(self, trial: TrialRecord) -> None:
        """Called when a trial is complete, pruned or failed."""

    def finals_started(self, runs: int) -> None:
        """Called when the finals start.

        Args:
            runs: Maximum number of final runs.
        """

    def final_run_finished(self, candidate: str, run: FinalRun) -> None:
        """Called after every final run.

        Args:
            candidate: Name of the finalist.
            run: The finished run.
        """

    def study_finished(self, record: StudyRecord) -> None:
        """Called when the search has finished or was interrupted, with the final state of the study."""
