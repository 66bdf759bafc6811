"""MLflow tracking of studies, during a search and afterwards."""

from __future__ import annotations

import dataclasses
import json
import logging
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from nbt.errors import NbtError
from nbt.report.files import report_folder
from nbt.report.study.recommendation import current_recommendation, default_recipe_trial
from nbt.tracking.client import open_store
from nbt.tracking.connection import RETRY_SECONDS, TrackingConnection, error_summary
from nbt.tracking.run_store import RunOwner, RunStore, study_owner
from nbt.tracking.study_run_specs import MLFLOW_STATUS, RunSpec, seed_run, study_run, study_runs, trial_run
from nbt.tracking.uris import resolve_uri
from nbt.training.export.model_folder import was_trained_with
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE, default_recipe
from nbt.tuning.intervals import Interval
from nbt.tuning.storage.records import FinalRecord, FinalRun, StudyObserver, StudyRecord, TrialRecord
from nbt.uris import redact_uri

_log = logging.getLogger("nbt")

# Writing the progress of a study takes time in proportion to its trials; with more, it is written in intervals.
_MAX_TRIALS_ALWAYS_WRITTEN, _SECONDS_BETWEEN_PROGRESS = 200, 30.0
_REPORT_FILE_NAMES = (
    "report.html",
    "report.md",
    "recommended.yaml",
    "trials.csv",
    "test_classes.csv",
    "test_confusion.csv",
)


def sync(record: StudyRecord, uri: str | None = None, *, reports: str | Path | None = None) -> dict[str, int]:
    """Writes the runs of a study that are missing or out of date; a repeated call changes nothing.

    Args:
        record: The study.
        uri: See `resolve_uri`.
        reports: Folder of reports; the study's report and model, if they are there, are uploaded to its run.

    Returns:
        Number of runs that are "written", "updated" and "unchanged".

    Raises:
        UsageError: The URI is malformed.
        NbtError: The store cannot be written.
    """

    def log_files(store: RunStore) -> None:
        store.log_texts(_texts(record))
        _log_results(store, record, reports)

    return write_runs(uri, study_owner(record), study_runs(record), log_files)


def write_runs(
    uri: str | None, owner: RunOwner, specs: Sequence[RunSpec], log_files: Callable[[RunStore], None]
) -> dict[str, int]:
    """Writes runs and then their files; returns the number that are "written", "updated" and "unchanged".

    Args:
        uri: See `resolve_uri`.
        owner: Owner of the runs.
        specs: The runs, parents first.
        log_files: Uploads files to the written runs.

    Raises:
        UsageError: The URI is malformed.
        NbtError: The store cannot be written.
    """
    uri = resolve_uri(uri)
    try:
        store = open_store(uri, owner)
        counts = _write_all(store, specs)
        log_files(store)
    except Exception as error:
        remedy = "check that it is running, or use another --tracking-uri"
        raise NbtError(f"MLflow at {redact_uri(uri)} cannot be written ({error_summary(error)}); {remedy}") from error
    return counts


def _write_all(store: RunStore, specs: Sequence[RunSpec]) -> dict[str, int]:
    counts = {"written": 0, "updated": 0, "unchanged": 0}
    for spec in specs:
        counts[store.write(spec)] += 1
    return counts


def _texts(record: StudyRecord) -> dict[str, str]:
    """Returns the measurements behind a search that MLflow keeps as files: fit profile and weights of the priors."""
    texts = {}
    if record.profile is not None:
        from nbt.report.study.write import FIT_FILE, fit_file  # imports pandas and Jinja

        texts[FIT_FILE] = fit_file(record.profile)
    if record.prior_diagnostics:
        texts["priors.json"] = json.dumps(record.prior_diagnostics, indent=2, default=str) + "\n"
    return texts


def _log_results(store: RunStore, record: StudyRecord, reports: str | Path | None) -> None:
    """Uploads the report of a study and the model of its recommendation, where they exist."""
    if reports is None:
        return
    folder, recommendation = report_folder(reports, record.config.name), current_recommendation(record)
    store.log_files([folder / name for name in _REPORT_FILE_NAMES if (folder / name).is_file()])
    tested = any(test.name == "recommended" for test in record.test)
    model = folder / "model"
    if tested and recommendation is not None and was_trained_with(model, recommendation.settings):
        store.log_model(model, record.search_config().register)


class Tracker(StudyObserver):
    """Writes a study to MLflow while it runs; failures of MLflow do not affect the search.

    A trial is written once, when it ends, and the progress of the study with it; that of more than 200 trials at most
    every 30 seconds. A failure causes one warning. The whole study is then written again when MLflow is reachable
    (tried at most once per `retry_seconds`) and at the end.

    Args:
        uri: See `resolve_uri`.
        reports: Folder of reports; the study's report and model are uploaded to its run at the end.
        sync_options: Options, without passwords, with which `nbt sync` finds the study, the runs and the reports.
        retry_seconds: Minimum time in seconds between two attempts to reach an unreachable store.
        clock: Monotonic clock in seconds; replaceable for tests.

    Raises:
        UsageError: The URI is malformed.
    """

    def __init__(
        self,
        uri: str | None = None,
        *,
        reports: str | Path | None = None,
        sync_options: Mapping[str, str] = MappingProxyType({}),
        retry_seconds: float = RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.uri = resolve_uri(uri)
        self._reports, self._sync_options = reports, sync_options
        self._connection = TrackingConnection(self.uri, retry_seconds=retry_seconds, clock=clock)
        self._clock, self._progress_at = clock, clock()
        self._record: StudyRecord | None = None
        self._trials: dict[int, TrialRecord] = {}  # all trials; those of `_record` are of the start
        self._store: RunStore | None = None
        self._live = True

    @property
    def pending(self) -> bool:
        """Whether runs of the study are waiting to be written."""
        return self._record is not None and self._store is None

    def sync_command(self, record: StudyRecord) -> str:
        """Returns the command that writes the missing runs of a study."""
        options = [word for option in self._sync_options.items() for word in option]
        return shlex.join(["nbt", "sync", record.config.name, *options])

    def study_started(self, record: StudyRecord) -> None:
        """Writes the study and runs that an earlier search could not write."""
        self._record, self._store, self._live = record, None, True
        self._trials = {trial.number: trial for trial in record.trials}
        self._write()

    def trial_finished(self, trial: TrialRecord) -> None:
        """Writes a trial and the progress of the study."""
        if self._record is None or trial.end not in MLFLOW_STATUS:
            return
        record = self._record
        self._trials[trial.number] = trial
        self._write(lambda: [trial_run(record, trial), *self._progress(record)])

    def final_run_finished(self, candidate: str, run: FinalRun) -> None:
        """Writes a final run."""
        current = None if self._record is None else self._with_trials(self._record)
        final = None if current is None else _with_final_run(current, candidate, run)
        if current is None or final is None:
            return
        others = [other for other in current.finals if other.name != candidate]
        record = self._record = dataclasses.replace(current, finals=(*others, final))
        self._write(lambda: [seed_run(record, final, run)])

    def study_finished(self, record: StudyRecord) -> None:
        """Writes all missing runs, the files of the report and the model."""
        self._record, self._live = record, False
        self._trials = {trial.number: trial for trial in record.trials}
        self._connection.retry_now()
        self._write(lambda: study_runs(record), finished=True)

    def _with_trials(self, record: StudyRecord) -> StudyRecord:
        """Returns the record with all trials so far."""
        return dataclasses.replace(record, trials=tuple(self._trials[number] for number in sorted(self._trials)))

    def _progress(self, record: StudyRecord) -> list[RunSpec]:
        """Returns the run of the study; none if it has many trials and was written a moment ago."""
        due = self._clock() - self._progress_at >= _SECONDS_BETWEEN_PROGRESS
        if len(self._trials) > _MAX_TRIALS_ALWAYS_WRITTEN and not due:
            return []
        self._progress_at = self._clock()
        return [study_run(self._with_trials(record), live=True)]

    def _write(self, specs: Callable[[], list[RunSpec]] | None = None, *, finished: bool = False) -> None:
        """Writes runs without raising; after a failed attempt it writes all runs of the study.

        Args:
            specs: Creates the runs to write if the store is open; None writes all runs.
            finished: Whether to upload the report and the model.
        """
        record = self._record
        if record is None or (self._store is None and not self._connection.retry_due):
            return
        opened = self._store
        self._store = None

        def write() -> None:
            if opened is None or specs is None:
                store = open_store(self.uri, study_owner(record))
                runs = study_runs(self._with_trials(record), live=self._live)
            else:
                store, runs = opened, specs()
            _write_all(store, runs)
            if finished or store is not opened:
                store.log_texts(_texts(record))
            if finished:
                _log_results(store, record, self._reports)
            self._store = store

        consequence = "the search continues, and its runs are written when MLflow is reachable again, or by: "
        self._connection.attempt(write, consequence + self.sync_command(record))


def _with_final_run(record: StudyRecord, candidate: str, run: FinalRun) -> FinalRecord | None:
    """Returns the record of a finalist extended by a run; None if the candidate is unknown.

    Its interval is a placeholder: runs do not contain it, and the record at the end has the final one.
    """
    if candidate == DEFAULT_RECIPE:
        trial, settings = default_recipe_trial(record), default_recipe(record.config.epochs)
    else:
        trial = next((t for t in record.trials if f"trial {t.number}" == candidate), None)
        if trial is None:
            return None
        settings = trial.settings
    final = record.final(candidate)
    runs = () if final is None else final.runs
    return FinalRecord(
        name=candidate,
        trial=None if trial is None else trial.number,
        settings=settings,
        runs=(*(other for other in runs if other.seed != run.seed), run),
        validation=Interval(mean=run.score(record.config.metric), low=None, high=None, n=1),
    )
