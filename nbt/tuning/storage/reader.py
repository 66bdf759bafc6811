"""Conversion of stored studies and trials to records."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from nbt.errors import UsageError
from nbt.metrics import DEFAULT_METRIC
from nbt.search_config import SearchConfig
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.budget import Budget
from nbt.tuning.importance import Importance
from nbt.tuning.intervals import Interval, ValidationDesign, accuracy_standard_error
from nbt.tuning.job_clock import TRIALS
from nbt.tuning.run_scores import RunScore, image_scores, paired_difference, score_interval
from nbt.tuning.storage import codec
from nbt.tuning.storage.candidates import CandidateRecord
from nbt.tuning.storage.records import (
    FinalRecord,
    FinalRun,
    LoadPredictions,
    StudyConfig,
    StudyRecord,
    StudySummary,
    TestRecord,
    TrialRecord,
    count_statuses,
    no_predictions,
    trial_status,
)
from nbt.tuning.storage.source import SourceRecord

_log = logging.getLogger("nbt")

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}

_TEST_NAMES = ("recommended", "baseline")


def read_trial(trial: FrozenTrial) -> TrialRecord | None:
    """Returns the record of a trial; None if it was never started or its stored data are damaged."""
    attributes = trial.user_attrs
    if trial.state not in _STATES or codec.SETTINGS not in attributes:
        return None
    try:
        return TrialRecord(
            number=trial.number,
            state=_STATES[trial.state],
            settings=TransferSettings.from_dict(attributes[codec.SETTINGS]),
            origin=str(attributes.get(codec.ORIGIN, "sampler")),
            curve=_read_curve(attributes),
            trained=trained_epochs(trial),
            reason=str(attributes.get(codec.REASON, "")),
            started=_to_utc(trial.datetime_start),
            finished=_to_utc(trial.datetime_complete),
            facts=dict(attributes.get(codec.FACTS, {})),
            epoch_cost=float(attributes.get(codec.EPOCH_COST, 1.0)),
            source_accuracy=attributes.get(codec.SOURCE_ACCURACY),
            continues=attributes.get(codec.RUN, {}).get("continues"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        _log.warning("trial %d: its stored record is damaged (%s); the trial is ignored", trial.number, error)
        return None


def trained_epochs(trial: FrozenTrial) -> int:
    """Returns the number of epochs that a trial trained, without those of an interrupted trial that it continues."""
    progress = trial.user_attrs.get(codec.PROGRESS)
    trained = progress.get("trained") if isinstance(progress, dict) else None
    return trained if isinstance(trained, int) else len(trial.intermediate_values)


def read_config(name: str, attributes: Mapping[str, Any]) -> StudyConfig | None:
    """Returns the configuration of a study; None if the study was not created by nbt.

    Args:
        name: Name of the study.
        attributes: User attributes of the study.

    Raises:
        UsageError: The configuration is damaged.
    """
    if codec.CONFIG not in attributes:
        return None
    try:
        return StudyConfig(**attributes[codec.CONFIG])
    except TypeError as error:
        raise UsageError(f"study {name}: its stored configuration is damaged ({error})") from error


def study_record(
    name: str,
    stored_trials: Sequence[FrozenTrial],
    attributes: Mapping[str, Any],
    load_predictions: LoadPredictions = no_predictions,
) -> StudyRecord:
    """Returns the record of a study.

    Args:
        name: Name of the study.
        stored_trials: Its trials, see `nbt.tuning.storage.trial_tables.read_trials`.
        attributes: User attributes of the stored study.
        load_predictions: As in `StudyRecord`.

    Raises:
        UsageError: The configuration is damaged, or the study was not created by nbt.
    """
    config = read_config(name, attributes)
    if config is None:
        raise UsageError(f"study {name} was not created by nbt")
    trials = [record for record in map(read_trial, stored_trials) if record is not None]
    importance = Importance(stored_trials)
    budget = str(attributes.get(codec.BUDGET, ""))
    dataset = _get_mapping(attributes, codec.DATASET)
    finals = _read_finals(attributes, dataset, load_predictions)
    decision = _get_mapping(attributes, codec.FINALS)
    classes = _get_mapping(attributes, codec.CLASSES)
    return StudyRecord(
        config=config,
        dataset=dataset,
        budget=budget,
        epochs_budget=_epochs_budget(budget, config.epochs),
        ended=str(attributes.get(codec.ENDED, "")),
        epochs_spent=sum(map(trained_epochs, stored_trials)),
        seconds_spent=float(attributes.get(codec.SECONDS, 0.0)),
        pruner=str(attributes.get(codec.PRUNER, "")),
        trials=trials,
        finals=finals,
        recommended=decision.get("recommended") if finals else None,
        verdict=str(decision.get("verdict", "")) if finals else "",
        failed_finals=_get_mapping(decision, "failed") if finals else {},
        test=_read_test_results(attributes) if finals else (),
        test_evaluations=int(attributes.get(codec.TEST_EVALUATIONS, 0)),
        importance=importance.shares(),
        load_importance_bounds=cache(importance.bounds),
        noise=noise_of(trials, dataset, config.metric),
        notes=tuple(attributes.get(codec.NOTES, ())),
        created=_parse_time(attributes.get(codec.CREATED)),
        profile=read_profile(attributes),
        prior_diagnostics=_get_mapping(attributes, codec.PRIOR_DIAGNOSTICS),
        experience=str(attributes.get(codec.EXPERIENCE, "")),
        clock=_read_clock(attributes),
        search=_read_search(attributes),
        class_names=tuple(classes.get("names", ())),
        class_images=tuple(classes.get("images", ())),
        candidates=_read_candidates(attributes),
        left_out={str(k): str(v) for k, v in _get_mapping(attributes, codec.CANDIDATES).get("left_out", {}).items()},
        source=_read_source(attributes),
        load_predictions=load_predictions,
        load_profile=cache(lambda backbone: read_profile(attributes, codec.profile_key(backbone))),
    )


def _read_clock(attributes: Mapping[str, Any]) -> dict[str, float]:
    """Returns the seconds of the phases; those of the trials are stored more often than the others."""
    stored = _get_mapping(attributes, codec.CLOCK)
    seconds = {name: float(value) for name, value in stored.items() if isinstance(value, int | float)}
    trials = max(seconds.get(TRIALS, 0.0), float(attributes.get(codec.SECONDS, 0.0)))
    return {**seconds, TRIALS: trials} if seconds else {}


def _read_candidates(attributes: Mapping[str, Any]) -> tuple[CandidateRecord, ...]:
    try:
        stored = _get_mapping(attributes, codec.CANDIDATES).get("candidates", ())
        return tuple(map(CandidateRecord.from_dict, stored))
    except TypeError as error:
        _log.warning("what was known of the backbones is damaged (%s) and ignored", error)
        return ()


def _read_source(attributes: Mapping[str, Any]) -> SourceRecord | None:
    stored = _get_mapping(attributes, codec.SOURCE)
    try:
        return SourceRecord.from_dict(stored) if stored else None
    except TypeError as error:
        _log.warning("what was known of the source is damaged (%s) and ignored", error)
        return None


def _read_search(attributes: Mapping[str, Any]) -> SearchConfig | None:
    stored = _get_mapping(attributes, codec.SEARCH)
    try:
        return SearchConfig.from_options(stored) if stored else None
    except UsageError as error:
        _log.warning("the stored options of the search are damaged (%s); they are ignored", error)
    valid = {name: value for name, value in stored.items() if _is_valid_option(name, value)}
    return SearchConfig.from_options(valid) if valid else None


def _is_valid_option(name: str, value: Any) -> bool:
    """Returns whether a search of this version takes an option; earlier versions took a single final run."""
    try:
        SearchConfig.from_options({name: value})
    except UsageError:
        return False
    return True


def summarise(name: str, attributes: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> StudySummary | None:
    """Returns the summary of a study; None if it was not created by nbt or is damaged.

    Args:
        name: Name of the study.
        attributes: User attributes of the study.
        trials: Trials of the study.
    """
    try:
        config = read_config(name, attributes)
    except UsageError as error:
        _log.warning("%s", error)
        return None
    if config is None:
        return None
    values = [trial.value for trial in trials if trial.state is TrialState.COMPLETE and trial.value is not None]
    started_trials = [trial for trial in trials if codec.SETTINGS in trial.user_attrs]
    return StudySummary(
        name=name,
        dataset=config.dataset,
        backbone=config.backbones_text,
        space=config.space,
        budget=str(attributes.get(codec.BUDGET, "")),
        trials=count_statuses(map(_trial_status, started_trials)),
        metric=config.metric,
        best=max(values, default=None),
        finished=len(_read_test_results(attributes)) == len(_TEST_NAMES),
        created=_parse_time(attributes.get(codec.CREATED)),
    )


def _trial_status(trial: FrozenTrial) -> str:
    return trial_status(_STATES.get(trial.state, ""), str(trial.user_attrs.get(codec.REASON, "")))


def noise_of(trials: Sequence[TrialRecord], dataset: Mapping[str, Any], metric: str) -> float | None:
    """Returns the standard error of the score of one validation at the best trial's score.

    Args:
        trials: Trials of the study; only full-length ones are used.
        dataset: Facts about the dataset.
        metric: Name of the metric of the study.

    Returns:
        The standard error; None without full-length trials or without the number of validation images.
    """
    full = [score for trial in trials if (score := trial.score(metric)) is not None]
    n = codec.score_images(dataset, metric)
    return accuracy_standard_error(max(full), n) if full and n else None


def validation_design(
    dataset: Mapping[str, Any], comparisons: int = 1, metric: str = DEFAULT_METRIC
) -> ValidationDesign | None:
    """Returns how the runs of a study are validated; None without the numbers of images.

    Args:
        dataset: Facts about the dataset.
        comparisons: See `ValidationDesign`.
        metric: Name of the metric of the study.
    """
    images, train_images = codec.score_images(dataset, metric), int(dataset.get(codec.TRAIN_IMAGES) or 0)
    if not images or not train_images:
        return None
    fixed = bool(dataset.get(codec.VALIDATION_FIXED))
    return ValidationDesign(images=images, train_images=train_images, fixed=fixed, comparisons=comparisons)


def score_of(settings: TransferSettings, run: FinalRun, metric: str, load_predictions: LoadPredictions) -> RunScore:
    """Returns the score of a final run.

    Args:
        settings: Recipe of the run.
        run: The run.
        metric: Name of the metric of the study.
        load_predictions: As in `StudyRecord`.
    """
    predictions = load_predictions(codec.final_key(settings, run.seed, run.fold))
    return RunScore(run.score(metric), run.val_loss, image_scores(predictions, metric))


def read_runs(attributes: Mapping[str, Any], settings: TransferSettings) -> list[FinalRun]:
    """Returns the stored final runs of the given settings, those of version 0.1 included, sorted by seed."""
    prefix = codec.final_key(settings, 0).rsplit(":", 1)[0] + ":"
    runs = []
    for key, columns in attributes.items():
        if key.startswith(prefix):
            try:
                seed, *fold = map(int, key.removeprefix(prefix).split(":"))
                runs.append(FinalRun(seed=seed, curve=codec.decode_curve(columns), fold=fold[0] if fold else None))
            except (KeyError, TypeError, ValueError):
                _log.warning("a stored final run is damaged and will be run again")
    return sorted(runs, key=lambda run: run.seed)


def _read_finals(
    attributes: Mapping[str, Any], dataset: Mapping[str, Any], load_predictions: LoadPredictions
) -> tuple[FinalRecord, ...]:
    """Returns the finalists of the stored decision with their separately stored runs."""
    try:
        decision = _get_mapping(attributes, codec.FINALS)
        entries = decision.get("candidates", [])
        # Version 0.1 did not store the number; its finals looked three times, after 3, 4 and 5 seeds, by default.
        comparisons = int(decision.get("comparisons", max(1, 3 * (len(entries) - 1))))
        metric = codec.metric_of(attributes)
        design = validation_design(dataset, comparisons, metric)
        folds = bool(decision.get("folds"))
        runs = [_read_scores(entry, attributes, load_predictions, folds=folds) for entry in entries]
        default = next((found for found, entry in zip(runs, entries, strict=True) if entry["default"]), [])
        return tuple(_final_record(e, found, default, design) for e, found in zip(entries, runs, strict=True))
    except (KeyError, TypeError, ValueError, AttributeError):
        _log.warning("the stored finals are damaged and ignored")
        return ()


def _read_scores(
    entry: Mapping[str, Any], attributes: Mapping[str, Any], load_predictions: LoadPredictions, *, folds: bool
) -> list[tuple[FinalRun, RunScore]]:
    """Returns the runs of a finalist with their scores, sorted by seed."""
    settings, metric = TransferSettings.from_dict(entry["settings"]), codec.metric_of(attributes)
    return [
        (run, score_of(settings, run, metric, load_predictions))
        for run in read_runs(attributes, settings)
        if run.seed in entry["seeds"] and (run.fold is not None) == folds
    ]


def _final_record(
    entry: Mapping[str, Any],
    runs: Sequence[tuple[FinalRun, RunScore]],
    default: Sequence[tuple[FinalRun, RunScore]],
    design: ValidationDesign | None,
) -> FinalRecord:
    """Returns the record of a finalist, compared with the runs of the default recipe."""
    scores, references = ({run.seed: score for run, score in scored} for scored in (runs, default))
    return FinalRecord(
        name=entry["name"],
        trial=entry["trial"],
        settings=TransferSettings.from_dict(entry["settings"]),
        runs=tuple(run for run, _ in runs),
        validation=score_interval(list(scores.values()), design),
        versus_default=None if entry["default"] else paired_difference(scores, references, design),
        dropped=entry["dropped"],
    )


def _read_test_results(attributes: Mapping[str, Any]) -> tuple[TestRecord, ...]:
    """Returns the test results of the current recommendation.

    Results of an earlier recommendation, from before a larger budget, are ignored.
    """
    stored = _get_mapping(attributes, codec.TEST)
    recommended, results = _recommended_hash(attributes), _get_mapping(stored, "results")
    if recommended is None or _get_mapping(stored, "recipes").get("recommended") != recommended:
        return ()
    try:
        return tuple(
            TestRecord(
                name=name,
                accuracy=Interval(**values["accuracy"]),
                loss=values["loss"],
                n=values["n"],
                source_accuracy=values.get("source_accuracy"),
            )
            for name in _TEST_NAMES
            if (values := results.get(name)) is not None
        )
    except (KeyError, TypeError):
        _log.warning("the stored test results are damaged and ignored")
        return ()


def _recommended_hash(attributes: Mapping[str, Any]) -> str | None:
    """Returns the hash of the recommended settings; None before the end of the finals or if they are damaged."""
    decision = _get_mapping(attributes, codec.FINALS)
    try:
        recommended = next(entry for entry in decision["candidates"] if entry["name"] == decision["recommended"])
        return codec.settings_hash(TransferSettings.from_dict(recommended["settings"]))
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        return None


def read_profile(attributes: Mapping[str, Any], key: str = codec.PROFILE) -> dict[str, Any] | None:
    """Returns a stored fit profile; None if it is missing or damaged.

    Args:
        attributes: Attributes of the study.
        key: Name of the attribute.
    """
    stored = _get_mapping(attributes, key)
    if not stored:
        return None
    try:
        return codec.decode_profile(stored)
    except ValueError as error:
        _log.warning("the stored fit profile is ignored: %s", error)
        return None


def _get_mapping(attributes: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns an attribute that is a mapping; an empty mapping if it is missing or has another type."""
    value = attributes.get(name)
    return value if isinstance(value, dict) else {}


def _read_curve(attributes: Mapping[str, Any]) -> tuple[EpochResult, ...]:
    """Returns the learning curve of a trial; that of version 0.1 may still be encoded as columns."""
    progress = attributes.get(codec.PROGRESS)
    curve = () if progress is None else progress["curve"]
    return codec.decode_curve(curve) if isinstance(curve, Mapping) else tuple(curve)


def _epochs_budget(text: str, length: int) -> int | None:
    try:
        return Budget.parse(text).total_epochs(length)
    except UsageError:
        return None


def _to_utc(moment: datetime | None) -> datetime | None:
    """Converts a time of Optuna, which is local time without a time zone, to UTC."""
    return None if moment is None else moment.astimezone(UTC)


def _parse_time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
