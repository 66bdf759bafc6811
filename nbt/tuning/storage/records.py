"""Records of studies, trials and final runs as plain data, for reports and MLflow, and the observer of a study."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nbt.metrics import DEFAULT_METRIC, METRICS
from nbt.object_html import short_repr
from nbt.option import split_codes
from nbt.search_config import DEFAULT_EPOCHS, PRUNERS, SearchConfig
from nbt.settings import TransferSettings
from nbt.training.metrics import Predictions
from nbt.training.results import EpochResult, last_accuracy, last_score
from nbt.tuning.baseline_recipes import default_recipe
from nbt.tuning.budget import MIN_PROPOSAL
from nbt.tuning.intervals import Interval
from nbt.tuning.storage import codec
from nbt.tuning.storage.candidates import CandidateConfig, CandidateRecord
from nbt.tuning.storage.source import SourceRecord

if TYPE_CHECKING:
    from nbt.tuning.job_clock import JobEstimate

# Key of the facts of a trial.
FORECAST = "forecast"

INTERRUPTED = "interrupted: the search ended before the trial did"
"""Reason stored for interrupted trials, whose state is "failed"; a later search continues them as new trials."""

TRIAL_STATUSES = ("complete", "pruned", "failed", "interrupted", "running")
"""The values of `TrialRecord.end`."""
DIVERGED = "diverged"
PRIOR_ORIGIN_PREFIX = "recommended: "
"""Start of the origin of a trial whose settings priors or experience suggest before any trial."""


LoadPredictions = Callable[[str], Predictions | None]
LoadProfile = Callable[[str], Mapping[str, Any] | None]
LoadBounds = Callable[[], Mapping[str, tuple[float, float]]]


def no_predictions(run: str) -> None:
    """Returns None, for records without stored predictions."""
    return


def no_profile(backbone: str) -> None:
    """Returns None, for records without stored fit profiles of several backbones."""
    return


def no_bounds() -> Mapping[str, tuple[float, float]]:
    """Returns no intervals, for records without stored trials."""
    return {}


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The task of a study or of a stream of tasks.

    Attributes:
        dataset: Dataset as given by the user; of a study, a folder is an absolute path.
        backbone: Canonical specification, e.g. "mobilenet_v2(width_mult=0.35)".
        weights: "default", "none" or the path of a file, of a study an absolute one.
        image_size: Side of the images in pixels.
        data_hash: `Task.fingerprint`.
        weights_hash: Fingerprint of the pretrained weights w0.
        seed: Seed from which all others are derived: those of split, sampler and trials; of the order of the classes.
        data_dir: `--data-dir`, if given.
        classes: `--classes`, if given.
        shots: `--shots`, if given.
    """

    dataset: str
    backbone: str
    weights: str
    image_size: int
    data_hash: str
    weights_hash: str
    seed: int
    data_dir: str | None = None
    classes: int | None = None
    shots: int | None = None


@dataclass(frozen=True, kw_only=True)
class StudyConfig(TaskConfig):
    """The configuration of a study.

    Attributes:
        name: Name of the study.
        space: Name of the search space; a file is an absolute path.
        space_hash: Hash of the content of the search space.
        epochs: Epochs of a full trial; for a stream, of all tasks together.
        teacher: `--teacher`, if given; of several, as `nbt.settings.teacher_names` writes them.
        teacher_hash: Fingerprint of the weights of the teachers.
        scenario: `--scenario`, if given; every trial then learns a stream of tasks.
        tasks: Number of tasks of the stream; 1 for a single task.
        content_hash: `Task.content_hash`; None in studies that were stored before it existed.
        metric: Name of the metric that the search optimises, one of `nbt.metrics.METRICS`.
        candidates: The backbones to choose from, the reference, to which `backbone`, `weights` and `image_size` belong,
            first; empty in a search with one backbone.
        source_data: `--source-data`, if given.
        source_data_hash: Fingerprint of these images.
    """

    name: str
    space: str
    space_hash: str
    epochs: int
    teacher: str | None = None
    teacher_hash: str | None = None
    scenario: str | None = None
    tasks: int = 1
    content_hash: str | None = None
    metric: str = DEFAULT_METRIC
    candidates: tuple[CandidateConfig, ...] = ()
    source_data: str | None = None
    source_data_hash: str | None = None

    def __post_init__(self) -> None:
        # They are read as mappings.
        read = (item if isinstance(item, CandidateConfig) else CandidateConfig(**item) for item in self.candidates)
        object.__setattr__(self, "candidates", tuple(read))

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration in JSON types; candidates and images of the source only where there are some."""
        optional = ("candidates", "source_data", "source_data_hash")
        return {name: value for name, value in asdict(self).items() if name not in optional or value}

    @property
    def candidate_identity(self) -> tuple[tuple[str, str, int], ...]:
        """What two sessions of a study must agree in."""
        return tuple(candidate.identity for candidate in self.candidates)

    @property
    def backbones_text(self) -> str:
        """The backbone, or the names of all candidates."""
        return ", ".join(candidate.name for candidate in self.candidates) or self.backbone

    def backbone_name(self, settings: TransferSettings) -> str:
        """Returns the name of the backbone that a trial with the given settings trains."""
        return settings.backbone or (self.candidates[0].name if self.candidates else self.backbone)

    def with_backbone_of(self, settings: TransferSettings) -> StudyConfig:
        """Returns the configuration of a search with the one backbone that the settings choose.

        Raises:
            ValueError: The study has no such backbone.
        """
        if not self.candidates:
            return self
        for chosen in self.candidates:
            if chosen.name == self.backbone_name(settings):
                values = {name: value for name, value in asdict(chosen).items() if name != "name"}
                return replace(self, candidates=(), **values)
        raise ValueError(f"study {self.name} has no backbone {settings.backbone}")

    def named(self, settings: TransferSettings) -> TransferSettings:
        """Returns the settings of a trial with the name of its backbone, if there are several."""
        return settings.replace(backbone=self.backbone_name(settings)) if self.candidates else settings

    def per_task_settings(self, settings: TransferSettings) -> TransferSettings:
        """Returns the settings of a trial with `epochs` per task and the name of the backbone, for files."""
        return self.named(settings).replace(epochs=settings.epochs // self.tasks)


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial of the search.

    Attributes:
        number: Number of the trial in the study, from 0.
        state: Stored state: "complete" (full length), "pruned", "failed" or "running"; see `end`.
        settings: The repaired recipe of the trial.
        origin: Origin of the settings, e.g. "anchor: linear probe" for a baseline recipe, or "sampler".
        curve: Results of its epochs; if it continues an interrupted trial, including the epochs of that trial.
        trained: Number of epochs trained for it, without those of an interrupted trial that it continues; None means
            the length of `curve`.
        reason: Reason for which it was pruned or failed, else "".
        started: Start time in UTC.
        finished: End time in UTC; None while it runs.
        facts: Location (see `nbt.tuning.engines.protocol.WorkerLocation.facts`), worker, GPU, precision,
            set-up seconds, peak memory, lost workers, and the forecast of the fit pruner (see `forecast`).
        epoch_cost: Cost of each of its epochs, in epochs of the default recipe; 1 in studies of earlier versions, whose
            budgets counted epochs.
        source_accuracy: Accuracy of a complete trial's body with the unchanged classifier of the source on the images
            of `--source-data` after the last epoch, 0 ... 1; 0 if it diverged. None without these images, for trials
            that are not complete, and for backbones whose weights have no usable classifier.
        continues: Number of the interrupted trial that it continues; None for a new trial.
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
    epoch_cost: float = 1.0
    source_accuracy: float | None = None
    continues: int | None = None

    @property
    def val_accuracy(self) -> float | None:
        """Value of a full-length trial: its validation accuracy after the last epoch, 0 ... 1; 0 if it diverged.

        None for every other trial: the accuracy of a stopped trial is not comparable with those of full-length ones.
        """
        return self.last_accuracy if self.state == "complete" else None

    def score(self, metric: str) -> float | None:
        """Returns the score of a full-length trial, 0 ... 1, by which a study of this metric ranks it.

        It is 0 if the trial diverged, and None for every other trial, as `val_accuracy`.
        """
        return self.last_score(metric) if self.state == "complete" else None

    def last_score(self, metric: str) -> float | None:
        """Returns the score after the last epoch so far, 0 ... 1; see `nbt.training.results.last_score`."""
        return last_score(self.curve, metric)

    @property
    def val_loss(self) -> float | None:
        """Validation loss of a full-length trial after the last epoch in nats; None without validation."""
        return self.curve[-1].val_loss if self.state == "complete" and self.curve else None

    @property
    def last_accuracy(self) -> float | None:
        """Validation accuracy after the last epoch so far, 0 ... 1; see `nbt.training.results.last_accuracy`."""
        return last_accuracy(self.curve)

    @property
    def diverged(self) -> bool:
        """Whether the loss became infinite or NaN; the accuracy then counts as 0."""
        return bool(self.curve) and self.curve[-1].diverged

    @property
    def end(self) -> str:
        """Status of the trial, one of `TRIAL_STATUSES`: its state, or "interrupted"."""
        return trial_status(self.state, self.reason)

    @property
    def outcome(self) -> str:
        """The status of the trial, or "diverged" for a full-length trial that did."""
        return DIVERGED if self.diverged and self.state == "complete" else self.end

    @property
    def forecast(self) -> Mapping[str, Any] | None:
        """Forecast of the fit pruner; None without one. See `nbt.tuning.pruners.fit_pruner.FitPruner.forecast`."""
        stored = self.facts.get(FORECAST)
        return stored if isinstance(stored, Mapping) else None

    @property
    def seconds(self) -> float:
        """Training time in seconds."""
        return sum(result.seconds for result in self.curve)

    @property
    def epochs_spent(self) -> int:
        """Number of epochs that the trial adds to those spent by the study."""
        return len(self.curve) if self.trained is None else self.trained

    @property
    def cost(self) -> float:
        """What the trial adds to the spent budget of the study, in epochs of the default recipe."""
        return self.epochs_spent * self.epoch_cost


@dataclass(frozen=True, kw_only=True)
class FinalRun:
    """One final run of a finalist with a new seed and, unless the validation images are official, a new split.

    Attributes:
        seed: Seed of the run.
        curve: Results of its epochs.
        fold: Fold of the train/validation split, see `nbt.data.splits.make_split`; None for a run of version 0.1, whose
            split was drawn with its seed.
    """

    seed: int
    curve: tuple[EpochResult, ...]
    fold: int | None = None

    @property
    def val_accuracy(self) -> float:
        """Validation accuracy after the last epoch, 0 ... 1; 0 if the run diverged."""
        return last_accuracy(self.curve) or 0.0

    @property
    def values(self) -> dict[str, float | None]:
        """Value of each metric after the last epoch; None where it is not known or not defined."""
        return {name: self.curve[-1].value(name) if self.curve else None for name in METRICS}

    def score(self, metric: str) -> float:
        """Returns the score of a metric after the last epoch, 0 ... 1; 0 if the run diverged."""
        return last_score(self.curve, metric) or 0.0

    @property
    def diverged(self) -> bool:
        """Whether the loss became infinite or NaN."""
        return bool(self.curve) and self.curve[-1].diverged

    @property
    def val_loss(self) -> float:
        """Validation loss after the last epoch in nats; infinite if it is unknown."""
        loss = self.curve[-1].val_loss if self.curve else None
        return math.inf if loss is None else loss


@dataclass(frozen=True, kw_only=True)
class FinalRecord:
    """A finalist: settings that were run again with new seeds and, unless the validation images are fixed, new splits.

    Attributes:
        name: "trial 12" or "default recipe".
        trial: Number of the trial with these settings; None if no trial ran the default recipe.
        settings: The recipe.
        runs: One per seed; finalists share seeds, so that differences are paired.
        validation: Mean score of the metric of the study over the runs with its interval, see
            `nbt.tuning.run_scores.score_interval`.
        versus_default: Paired difference to the default recipe, in score, with an interval that is corrected for the
            number of comparisons; None for the default recipe itself.
        dropped: Reason for which it got fewer seeds than others, else "".
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
    """The single evaluation on the test images of a model trained on train + validation.

    Attributes:
        name: "recommended" or "baseline".
        accuracy: Test accuracy, 0 ... 1, with its 95 % Wilson score interval over the images.
        loss: Mean cross-entropy in nats, or None.
        n: Number of test images.
        source_accuracy: Source accuracy of this model, 0 ... 1; None as in `TrialRecord`.
    """

    __test__ = False  # keeps pytest from collecting the class

    name: str
    accuracy: Interval
    loss: float | None
    n: int
    source_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study with its trials, finals and test results.

    Attributes:
        config: Configuration of the study.
        dataset: Facts about the dataset; see `nbt.task.summary.dataset_summary`.
        budget: Budget as given by the user: "20", "30m", "2h".
        epochs_budget: The budget in epochs of the default recipe; None for a time budget.
        ended: Why a search with the budget "auto" ended, "" if it did not or has another budget.
        epochs_spent: Training epochs of all trials, including pruned and failed ones, without the finals.
        seconds_spent: Wall-clock time of the search in seconds, without the finals.
        pruner: "fit", "asha" or "none".
        trials: Trials in the order of their numbers.
        finals: Finalists, best first; empty before the end of the finals.
        failed_finals: Name of each finalist without a successful run -> reason; they are not in `finals`.
        recommended: Name of the recommended finalist; None before the end of the finals.
        verdict: Sentence that compares the recommendation with the default recipe.
        test: Results of the recommendation and the baseline; empty before their test evaluation.
        test_evaluations: Number of test evaluations in this study, one per finished search.
        importance: Dimension -> importance by PED-ANOVA; see `nbt.tuning.importance.Importance`.
        noise: Standard error of the score of one validation at the best trial's score.
        notes: Further remarks for readers, e.g. on unreadable images.
        created: Time of creation in UTC.
        profile: Fit profile as returned by `FitProfile.to_dict`; None if it was not measured.
        prior_diagnostics: Weights of priors and recorded tasks before and after the trials; see
            `nbt.tuning.prior_diagnostics`. Empty if the search used neither.
        experience: The recorded tables that the last session with trials or finals used, as text; "" if it used none
            or its version did not store it.
        clock: Phase (see `nbt.tuning.job_clock.PHASES`) -> its wall-clock time in seconds, over all sessions, and
            "estimate" -> the first estimate of the whole by the last session. Empty for studies of earlier versions.
        search: Options of the last session; None for studies of version 0.1, see `search_config`.
        class_names: Names of the classes, (C,); empty in studies of version 0.1.
        class_images: Number of training and validation images of each class, (C,); empty in studies of version 0.1.
        candidates: What is known of the backbones to choose from before any trial, in the order of
            `StudyConfig.candidates`; empty with one backbone.
        left_out: Backbone that could not be used -> reason.
        source: Source accuracy of the pretrained weights; None without `--source-data`.
        load_predictions: Returns the predictions of a run by its key, or None; see `final_predictions` and
            `test_predictions`. They are read from the storage when they are first used.
        load_profile: Returns the fit profile of a backbone other than the reference by its name, or None; see
            `profile_of`.
        load_importance_bounds: Returns the interval of each importance, see
            `nbt.tuning.importance.Importance.bounds`. They are computed when they are first used.
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
    failed_finals: Mapping[str, str] = field(default_factory=dict)
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
    experience: str = ""
    clock: Mapping[str, float] = field(default_factory=dict)
    search: SearchConfig | None = None
    class_names: Sequence[str] = ()
    class_images: Sequence[int] = ()
    ended: str = ""
    candidates: Sequence[CandidateRecord] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    source: SourceRecord | None = None
    load_predictions: LoadPredictions = field(default=no_predictions, repr=False, compare=False)
    load_profile: LoadProfile = field(default=no_profile, repr=False, compare=False)
    load_importance_bounds: LoadBounds = field(default=no_bounds, repr=False, compare=False)

    def __repr__(self) -> str:
        counts = counts_text(self.trials)
        facts = [self.config.name, f"{len(self.trials)} trials", counts, f"recommended {self.recommended}"]
        return short_repr("StudyRecord", facts)

    def profile_of(self, backbone: str) -> Mapping[str, Any] | None:
        """Returns the fit profile of a backbone; None if it was not measured.

        Args:
            backbone: The setting `backbone`: "" for the reference, else a name of `StudyConfig.candidates`.
        """
        return self.load_profile(backbone) if backbone else self.profile

    def search_config(self) -> SearchConfig:
        """Returns the options of the last session; derived from the rest of the record if they are not stored."""
        if self.search is not None:
            return self.search
        config = self.config
        is_stream = config.scenario is not None
        is_guided = bool(self.prior_diagnostics) or any(t.origin.startswith(PRIOR_ORIGIN_PREFIX) for t in self.trials)
        values = {
            "dataset": config.dataset,
            "data_dir": config.data_dir,
            "backbone": config.backbone,
            "weights": config.weights,
            "image_size": config.image_size,
            "classes": config.classes,
            "shots": config.shots,
            "budget": self.budget or None,
            "space": config.space,
            "teacher": config.teacher,
            "source_data": config.source_data,
            "epochs": epochs if (epochs := config.epochs // config.tasks) != DEFAULT_EPOCHS else None,
            "study": config.name,
            "pruner": "fit" if is_stream or self.pruner not in PRUNERS else self.pruner,
            "heuristics": is_stream or is_guided,
            "scenario": config.scenario,
            "tasks": config.tasks if is_stream else None,
            "metric": config.metric,
            "seed": config.seed,
            "workers": 1,  # the default of version 0.1
        }
        return SearchConfig.from_options(values)

    def ranked(self) -> list[TrialRecord]:
        """Returns the full-length trials, best first; see `rank_trials`."""
        return rank_trials(self.trials, self.config.metric)

    def final_predictions(self, final: FinalRecord, run: FinalRun) -> Predictions | None:
        """Returns the predictions of the validation images after the last epoch of a final run.

        None if the run diverged, is one of a stream of tasks, or is stored by an earlier version.
        """
        return self.load_predictions(codec.final_key(final.settings, run.seed, run.fold))

    def test_predictions(self, name: str) -> Predictions | None:
        """Returns the predictions of the test images by the model "recommended" or "baseline".

        None before the test evaluation, and where `final_predictions` is None.
        """
        recommended = self.final(self.recommended or "")
        if name not in {test.name for test in self.test} or recommended is None:
            return None
        is_baseline = name == "baseline"
        settings = default_recipe(self.config.epochs) if is_baseline else recommended.settings
        return self.load_predictions(codec.test_key(settings))

    def final(self, name: str) -> FinalRecord | None:
        """Returns the finalist with the given name; None if there is none."""
        return next((final for final in self.finals if final.name == name), None)

    @property
    def copied_test_images(self) -> tuple[int, ...]:
        """Indices of the test images with a near copy in training or validation; none if the search ignores NBT102."""
        if "NBT102" in split_codes(self.search_config().ignore):
            return ()
        return tuple(self.dataset.get(codec.COPIED_TEST_IMAGES, ()))

    @property
    def has_fixed_validation(self) -> bool:
        """Whether all runs have the same validation images, because they are official; unknown in old studies."""
        return bool(self.dataset.get("validation_fixed"))

    @property
    def budget_spent(self) -> float:
        """Cost of all trials, in epochs of the default recipe, the unit of `epochs_budget`.

        An epoch of a trial whose record is damaged counts as one of the default recipe.
        """
        damaged = max(0, self.epochs_spent - sum(trial.epochs_spent for trial in self.trials))
        return damaged + sum(trial.cost for trial in self.trials)

    @property
    def cost(self) -> float:
        """Cost of all trials in trials of the default recipe, the unit of a budget such as "20"."""
        return self.budget_spent / self.config.epochs

    @property
    def cost_budget(self) -> int | None:
        """The budget in trials of the default recipe; None for a time budget."""
        return None if self.epochs_budget is None else self.epochs_budget // self.config.epochs

    @property
    def has_spent_budget(self) -> bool:
        """Whether no budget is left for another trial, nor a trial to continue; False for a time budget."""
        budget = self.cost_budget
        unfinished = {trial.number for trial in self.trials if trial.end in ("running", "interrupted")}
        if budget is None or unfinished - {trial.continues for trial in self.trials}:
            return False
        return budget - self.cost < MIN_PROPOSAL

    @property
    def has_ended(self) -> bool:
        """Whether the budget is spent and the final runs were decided; the last training may be left."""
        return self.recommended is not None and self.has_spent_budget

    def counts(self) -> dict[str, int]:
        """Returns the number of trials per status of `TRIAL_STATUSES`."""
        return count_statuses(trial.end for trial in self.trials)


def trial_status(state: str, reason: str) -> str:
    """Returns the status of a trial, one of `TRIAL_STATUSES`, from its state and reason."""
    return "interrupted" if state == "failed" and reason == INTERRUPTED else state


def counts_text(trials: Iterable[TrialRecord]) -> str:
    """Returns the number of trials per outcome in words, as in "4 complete, 1 diverged, 2 pruned"."""
    counts = Counter(trial.outcome for trial in trials)
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items(), key=_outcome_order))


def _outcome_order(item: tuple[str, int]) -> int:
    return (*TRIAL_STATUSES[:1], DIVERGED, *TRIAL_STATUSES[1:]).index(item[0])


def count_ended(counts: Mapping[str, int]) -> int:
    """Returns the number of trials that have ended; interrupted ones have not: a later search continues them.

    Args:
        counts: Number of trials per status of `TRIAL_STATUSES`.
    """
    return sum(count for status, count in counts.items() if status not in ("interrupted", "running"))


def count_statuses(statuses: Iterable[str]) -> dict[str, int]:
    """Returns the number of occurrences of each of `TRIAL_STATUSES`."""
    counts = Counter(statuses)
    return {status: counts[status] for status in TRIAL_STATUSES}


def rank_trials(trials: Sequence[TrialRecord], metric: str) -> list[TrialRecord]:
    """Returns the full-length trials, best first; the validation loss decides exact ties.

    Args:
        trials: Trials of a study; those that are not complete are ignored.
        metric: Name of the metric of the study.
    """

    def key(trial: TrialRecord) -> tuple[float, float]:
        loss = trial.val_loss if trial.val_loss is not None and not trial.diverged else math.inf
        return -(trial.score(metric) or 0.0), loss

    return sorted((trial for trial in trials if trial.score(metric) is not None), key=key)


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """An entry in the list of studies.

    Attributes:
        name: Name of the study.
        dataset: Dataset as given by the user.
        backbone: Canonical specification of the backbone.
        space: Name of the search space, or the path of its file.
        budget: Budget as given by the user.
        trials: Number of trials per status; see `StudyRecord.counts`.
        metric: Name of the metric of the study.
        best: Highest score of a full-length trial, 0 ... 1; None without one.
        finished: Whether the test results of its recommendation are stored.
        created: Time of creation in UTC.
    """

    name: str
    dataset: str
    backbone: str
    space: str
    budget: str
    trials: Mapping[str, int]
    metric: str
    best: float | None
    finished: bool
    created: datetime | None


class StudyObserver:
    """Base class of observers of a study, such as the progress display and MLflow; its methods do nothing."""

    def study_started(self, record: StudyRecord) -> None:
        """Called when the study was opened or resumed, before the first trial."""

    def trial_started(self, number: int, settings: TransferSettings, origin: str) -> None:
        """Called when a trial is given to a worker."""

    def trial_placed(self, number: int, location: Mapping[str, Any]) -> None:
        """Called with the location of a trial: those of node, device and gpu_index that are known."""

    def epoch_finished(self, number: int, result: EpochResult, spent: float) -> None:
        """Called after each epoch of a trial, with what the study has spent, in epochs of the default recipe."""

    def trial_finished(self, trial: TrialRecord) -> None:
        """Called when a trial is complete, pruned or failed."""

    def finals_started(self, runs: int, finalists: Sequence[str]) -> None:
        """Called before the finals of the finalists with these names, which take at most `runs` runs."""

    def final_run_finished(self, candidate: str, run: FinalRun) -> None:
        """Called after each final run of a finalist."""

    def job_estimated(self, estimate: JobEstimate) -> None:
        """Called with the estimated duration of the whole search: before the first trial, and whenever it changes."""

    def study_finished(self, record: StudyRecord) -> None:
        """Called with the final record when the study is finished and stored, or the search was interrupted."""
