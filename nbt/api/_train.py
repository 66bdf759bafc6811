"""Training with known settings: validation runs, then one run on training and validation images with one test."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from nbt.api._load_task import TaskOptions, as_task
from nbt.api._progress_source import ProgressTrialSource
from nbt.api.results import TrainResult
from nbt.errors import NbtError, UsageError, require_positive
from nbt.option import AUTO
from nbt.paths import check_outside
from nbt.progress import Progress as ProgressCallback
from nbt.report.settings_table import flat_settings, recipe_summary
from nbt.report.stored_values import finite
from nbt.search_config import check_workers
from nbt.settings import TransferSettings, repair
from nbt.tracking.command_tracker import CommandRun, dataset_of, track_command
from nbt.tracking.study_run_specs import source_metrics
from nbt.tracking.uris import resolve_uri
from nbt.training.export.model_folder import check_export, check_register
from nbt.tuning.engines.base import TrialSource
from nbt.tuning.source_accuracies import SourceAccuracies
from nbt.tuning.storage.records import FinalRun, TestRecord
from nbt.tuning.tuned_recipes import tuned_default

if TYPE_CHECKING:
    from nbt.task.task import Task
    from nbt.training.calibration import Calibration
    from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
    from nbt.tuning.finals.test_results import ClassResult, TestResult


class _SeedTrialSource(TrialSource):
    """Trial source of `train`: runs of one recipe with several seeds, then one on training and validation images.

    Args:
        settings: The repaired recipe.
        seeds: Number of validation runs.
        first: Seed of the first run, and of the last one.
        export: Folder of the exported model, or None.
    """

    def __init__(self, settings: TransferSettings, seeds: int, first: int, export: Path | None) -> None:
        from nbt.training.results import TrialSpec

        self._pending = [
            TrialSpec(key=f"seed-{first + fold}", settings=settings, seed=first + fold, split_seed=first, fold=fold)
            for fold in range(seeds)
        ]
        self._pending.append(
            TrialSpec(
                key="train-on-all",
                settings=settings,
                seed=first,
                train_on_all=True,
                evaluate_test=True,
                export=export,
                measure_source=True,
            )
        )
        # The validation predictions calibrate the model.
        self._pending = [dataclasses.replace(spec, keep_predictions=True) for spec in self._pending]
        self.settings = settings
        self.outcomes: dict[str, TrialOutcome] = {}
        self.specs = tuple(self._pending)
        self.curves: dict[str, list[EpochResult]] = {}

    def next_trial(self) -> TrialSpec | None:
        """Returns the next run; None if none is left."""
        return self._pending.pop(0) if self._pending else None

    def on_epoch(self, spec: TrialSpec, result: EpochResult) -> None:
        """Stores an epoch; the first one starts the curve anew."""
        earlier = [] if result.epoch == 1 else self.curves.get(spec.key, [])
        self.curves[spec.key] = [*earlier, result]

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Stores the outcome of a run.

        Raises:
            NbtError: The run failed or diverged.
        """
        if outcome.error is not None:
            raise NbtError(f"{spec.key}: {outcome.error}")
        if outcome.diverged:
            raise NbtError(
                f"{spec.key}: the loss is not finite in epoch {outcome.curve[-1].epoch}; lower the learning rates"
            )
        self.outcomes[spec.key] = outcome

    def on_abandoned(self, spec: TrialSpec) -> None:
        """Puts an abandoned run back to the front of the queue."""
        self._pending.insert(0, spec)


def train(
    task: Task | str | Path,
    settings: TransferSettings | None = None,
    *,
    seeds: int = 1,
    workers: int | str = AUTO,
    export: Path | None = None,
    tracking_uri: str | None = None,
    register: str | None = None,
    **options: Unpack[TaskOptions],
) -> TrainResult:
    """Trains with known settings: `seeds` validation runs, then one run on all labelled images that is tested once.

    Args:
        task: A loaded task, or the name or path of a dataset, which is loaded with `options`.
        settings: The recipe; the tuned default when None, see `nbt.tuning.tuned_recipes`.
        seeds: Number of validation runs. Their seeds count up from the seed of the task, and every run validates
            another fold of the training and validation images, unless the validation images are official.
        workers: Number of concurrent runs, at most `seeds`, or "auto"; see `nbt.tuning.engines.worker_count`.
        export: Folder for the tested model: new, empty, or a model folder, which is replaced.
        tracking_uri: URI of the MLflow tracking store that records the training; it is not recorded when None.
        register: Name under which the exported model is registered in MLflow; needs `export` and `tracking_uri`.
        **options: Options of the task, such as `backbone` and `image_size`, which are not allowed with a loaded task;
            `progress` shows the progress: None on a terminal and in a notebook, False never, True everywhere.

    Returns:
        The validation accuracies, the test result, and the settings, in which values without effect are neutral.

    Raises:
        UsageError: An argument is invalid.
        NbtError: A run failed or diverged.

    Examples:
        >>> import nbt
        >>> task = nbt.load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)
        >>> result = nbt.train(task, nbt.TransferSettings(epochs=1), seeds=2, workers=1, progress=False)
        >>> len(result.runs), result.test.n == len(task.split.test)
        (2, True)
    """
    from nbt.display.progress import Progress, shown_progress

    started = time.monotonic()
    require_positive(seeds=seeds)
    if not isinstance(settings, TransferSettings | None):
        raise UsageError(f"settings {settings!r}: give nbt.TransferSettings(...), or None for the tuned default")
    check_workers(workers)
    check_register(register, export)
    model = None if export is None else check_export(export, "--export")
    uri = None if tracking_uri is None else resolve_uri(tracking_uri)
    with shown_progress(options.pop("progress", None), Progress) as (progress, _):
        loaded = as_task(task, {**options, "progress": progress})
        source = _make_source(loaded, settings or tuned_default(), seeds, model)
        try:
            result = _train(loaded, source, workers, model, progress)
        except (KeyboardInterrupt, NbtError) as error:
            if uri is not None:
                track_command(_stopped_run(loaded, source, error, time.monotonic() - started), uri)
            raise
    result = dataclasses.replace(result, export=export)  # the path as the caller wrote it
    if uri is not None:
        track_command(_tracked_run(loaded, result, time.monotonic() - started), uri, register=register)
    return result


def _make_source(loaded: Task, recipe: TransferSettings, seeds: int, model: Path | None) -> _SeedTrialSource:
    """Returns the source of the runs.

    Raises:
        UsageError: The recipe is invalid for the task, or the model would be written into the dataset.
    """
    from nbt.training.recipe.checks import check_recipe, check_starting_weights

    if model is not None:
        check_outside("--export", model, loaded.dataset)
    teachers = [teacher.name for teacher in loaded.teachers]
    check_starting_weights(recipe, loaded.backbone, loaded.dataset, loaded.weights, teachers=teachers)
    check_recipe(recipe, len(loaded.split.train))
    return _SeedTrialSource(repair(recipe.replace(backbone="")), seeds, loaded.seed, model)


def _train(
    loaded: Task, source: _SeedTrialSource, workers: int | str, model: Path | None, progress: ProgressCallback | None
) -> TrainResult:
    from nbt.training.source_accuracy import reference_accuracy
    from nbt.tuning.engines.factory import EngineFactory
    from nbt.tuning.intervals import ValidationDesign, wilson_interval
    from nbt.tuning.run_scores import RunScore, image_scores, score_interval

    before = reference_accuracy(loaded)
    with EngineFactory("local", workers, max_runs=len(source.specs) - 1) as factory:
        factory.make(loaded, progress).run(ProgressTrialSource(source, progress))
    last = source.outcomes["train-on-all"]
    if last.test_accuracy is None:
        raise NbtError("the model was trained but not tested")
    runs = tuple(
        FinalRun(seed=spec.seed, curve=source.outcomes[spec.key].curve, fold=spec.fold)
        for spec in source.specs
        if not spec.train_on_all
    )
    n_test = len(loaded.split.test)
    test = TestRecord(
        name="test", accuracy=wilson_interval(last.test_accuracy, n_test), loss=finite(last.test_loss), n=n_test
    )
    design = ValidationDesign(
        images=len(loaded.split.val), train_images=len(loaded.split.train), fixed=loaded.pools.val is not None
    )
    found = [source.outcomes[spec.key].predictions for spec in source.specs if not spec.train_on_all]
    scores = [
        RunScore(run.val_accuracy, images=image_scores(predictions, "accuracy"))
        for run, predictions in zip(runs, found, strict=True)
    ]
    validation = score_interval(scores, design)
    calibration = _calibration(source, last)
    result, majority, classes = _test_results(loaded, test, last)
    if model is not None:
        from nbt.inference.model_card import complete_model_folder

        complete_model_folder(
            model,
            temperature=1.0 if calibration is None else calibration.temperature,
            test=result,
            predictions=last.predictions,
            majority=majority,
            classes=classes,
        )
    return TrainResult(
        source.settings,
        runs,
        validation,
        test,
        result,
        majority,
        classes,
        model,
        calibration,
        _source_accuracies(loaded, before, last),
    )


def _source_accuracies(task: Task, before: float | None, last: TrialOutcome) -> SourceAccuracies | None:
    """Returns the source accuracies of the pretrained weights and of the model; None without images of the source."""
    source = task.source_data
    if source is None:
        return None
    return SourceAccuracies(
        reference=before,
        recommended=last.source_accuracy,
        images=len(source.labels),
        copies=len(source.copies),
        near_copies=len(source.near_copies),
    )


def _tracked_run(task: Task, result: TrainResult, seconds: float) -> CommandRun:
    """Returns the MLflow run of a training: settings, results with bounds, one child per validation run, the model."""
    metrics: dict[str, float | None] = {"test_loss": result.test.loss}
    if result.source is not None:
        metrics |= source_metrics(result.source)
    intervals = {"final_val_accuracy": result.validation, "optimism": result.optimism}
    for prefix, tested in (("test", result.result), ("test_majority", result.majority)):
        intervals |= {} if tested is None else {f"{prefix}_{name}": value for name, value in tested.metrics.items()}
    for name, interval in intervals.items():
        if interval is not None:
            metrics |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return dataclasses.replace(
        _described_run(task, result.settings, seconds),
        metrics=metrics,
        curves={_curve_name(run.seed): run.curve for run in result.runs},
        model=result.export,
    )


def _stopped_run(task: Task, source: _SeedTrialSource, error: BaseException, seconds: float) -> CommandRun:
    """Returns the MLflow run of a training that was interrupted or failed: settings, and the epochs until then."""
    by_name = {_curve_name(spec.seed): spec.key for spec in source.specs if not spec.train_on_all}
    is_failed = isinstance(error, NbtError)
    return dataclasses.replace(
        _described_run(task, source.settings, seconds),
        curves={name: source.curves[key] for name, key in by_name.items() if key in source.curves},
        state="failed" if is_failed else "interrupted",
        reason=str(error) if is_failed else "interrupted by the user",
        unfinished=[name for name, key in by_name.items() if key not in source.outcomes],
    )


def _described_run(task: Task, settings: TransferSettings, seconds: float) -> CommandRun:
    """Returns the MLflow run of a training without its results."""
    facts = {
        name: getattr(task, name) for name in ("dataset", "weights", "image_size", "classes", "shots", "resize", "seed")
    }
    if task.source_data is not None:
        facts["source_data"] = task.source_data.dataset
    return CommandRun(
        command="train",
        name=f"train {recipe_summary(settings)}",
        params={**facts, "backbone": task.backbone.text, **flat_settings(settings)},
        metrics={},
        dataset=dataset_of(task),
        texts={"settings.yaml": settings.to_yaml()},
        seconds=seconds,
    )


def _curve_name(seed: int) -> str:
    return f"seed {seed}"


def _test_results(
    task: Task, test: TestRecord, outcome: TrialOutcome
) -> tuple[TestResult, TestResult | None, tuple[ClassResult, ...]]:
    """Returns the result of the model, that of always guessing, and the result by class."""
    from nbt.task.summary import labelled_images_per_class
    from nbt.tuning.finals.test_results import class_results, evaluate_test, majority_result

    images = labelled_images_per_class(task).tolist()
    result = evaluate_test(test, outcome.predictions, "accuracy", task.copied_test)
    if outcome.predictions is None:
        return result, None, ()
    classes = class_results(outcome.predictions, task.class_names, images)
    return result, majority_result(outcome.predictions, images, "accuracy"), tuple(classes)


def _calibration(source: _SeedTrialSource, last: TrialOutcome) -> Calibration | None:
    """Returns the calibration of the model of the last run by the validation runs; None if it has no predictions."""
    from nbt.training.calibration import calibrate

    runs = [source.outcomes[spec.key].predictions for spec in source.specs if not spec.train_on_all]
    folds = [predictions for predictions in runs if predictions is not None]
    return None if last.predictions is None else calibrate(folds, last.predictions)
