"""Runs task streams with several methods: task, methods, checkpoints, report and MLflow runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from nbt.api._load_task import TaskOptions, as_task, refuse_source_data
from nbt.api._streams import PlannedStream, StreamSource, check_streams_to_run, is_finished
from nbt.errors import NbtError, UsageError, require_positive
from nbt.object_html import short_repr, table_html
from nbt.option import AUTO
from nbt.paths import check_outside, check_writable_file, check_writable_folder
from nbt.progress import Progress
from nbt.search_config import check_workers
from nbt.settings import TransferSettings, repair
from nbt.settings.continual import ContinualSettings, default_tasks, method_overrides
from nbt.tuning.storage.stream_record import StreamObserver

if TYPE_CHECKING:
    from nbt.report.streams.comparison import Comparison
    from nbt.task.task import Task
    from nbt.tracking.stream_tracker import StreamTracker
    from nbt.tuning.storage.stream_record import StreamRecord


@dataclass(frozen=True)
class ContinualOutcome:
    """Result of `continual`.

    Attributes:
        comparison: The streams of every method.
        report_path: The HTML report; its folder contains the other files.
    """

    comparison: Comparison
    report_path: Path

    def __repr__(self) -> str:
        rows = [f"{method} {' '.join(accuracy.split())}" for method, accuracy, _ in self._rows()]
        return short_repr("ContinualOutcome", [self._title(), *rows])

    def _repr_html_(self) -> str:
        header = ("method", "average accuracy", "forgetting, points")
        return table_html(self._title(), [header, *self._rows(), ("report", str(self.report_path), "")])

    def _title(self) -> str:
        config = self.comparison.config
        stream = f"{config.settings.tasks} tasks, {config.settings.scenario}-incremental"
        return f"{config.dataset}, {config.backbone}: {stream}"

    def _rows(self) -> list[tuple[str, str, str]]:
        """Returns method, average accuracy and forgetting of each method, with intervals, as text."""
        from nbt.report.metric_text import interval_text

        return [
            (runs.method, interval_text(runs.average_accuracy), interval_text(runs.forgetting).replace(" %", ""))
            for runs in self.comparison.methods
        ]

    def to_json(self) -> dict[str, Any]:
        """Returns the result in JSON types: the path of the report and the content of `stream.json`."""
        return {"report": str(self.report_path), **self.comparison.to_json()}


def continual(
    dataset: str | Path | Task,
    *,
    scenario: str,
    methods: Sequence[str] | Mapping[str, TransferSettings] = ("dlcft",),
    tasks: int | None = None,
    seeds: int = 1,
    workers: int | str = AUTO,
    out: str | Path = "reports",
    tracking_uri: str | None = None,
    fresh: bool = False,
    observer: StreamObserver | None = None,
    command: str = "",
    export: str | Path | None = None,
    more: Mapping[str, Any] | None = None,
    **options: Unpack[TaskOptions],
) -> ContinualOutcome:
    """Learns task streams with several methods, and writes MLflow runs and a report that compares the methods.

    The same call resumes streams that were interrupted and returns finished streams without repeating them.

    Args:
        dataset: Dataset as in `nbt.api.load_task`, or a loaded task.
        scenario: "data", "task" or "class".
        methods: Names of methods, or a mapping of names to recipes; the others are compared with the first.
        tasks: Number of tasks of a stream, 2 or more; `nbt.settings.continual.default_tasks` when None.
        seeds: Number of streams per method. Their seeds count up from the seed of the task; streams with the same seed
            have the same task order and train/validation split for all methods.
        workers: Number of streams that run at a time, or "auto"; see `nbt.tuning.engines.worker_count`.
        out: Folder of the reports.
        tracking_uri: URI of the MLflow tracking store; `.nbt/mlflow.db` when None.
        fresh: Whether to delete the stored results of these streams first.
        observer: Observer of the streams.
        command: Shell command that reproduces the report, which shows it.
        export: Folder for the model after the last task, for `nbt.load_model`: new, empty, or a model folder, which is
            replaced. It needs a single stream (one method, one seed) whose model does not have to know the task of an
            image, so not the scenario "task".
        more: Other fields of `ContinualSettings`.
        **options: Options of the task, see `TaskOptions`; not allowed with a loaded task.

    Returns:
        The comparison of the methods and the path of the report.

    Raises:
        UsageError: An argument is invalid; raised before any training.
        NbtError: A stream cannot continue; finished tasks stay stored.

    Examples:
        >>> import nbt
        >>> task = nbt.load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)
        >>> outcome = nbt.continual(task, scenario="class", methods=["probe"], tasks=2, workers=1, progress=False)
        >>> outcome
        ContinualOutcome(digits, conv3(width=8): 2 tasks, class-incremental, probe ...)
    """
    from nbt.display.progress import shown_progress
    from nbt.display.stream_progress import StreamProgress
    from nbt.report.streams.comparison import compare_methods
    from nbt.report.streams.write import FILES, write_streams
    from nbt.tracking.stream_tracker import StreamTracker

    checked = check_streams(scenario, methods, tasks, more)
    refuse_source_data(options, "streams")
    require_positive(seeds=seeds)
    check_workers(workers)
    check_writable_folder("--out", out)
    model = None if export is None else _check_export(export, scenario, len(checked) * seeds)
    tracker = StreamTracker(tracking_uri)
    with shown_progress(options.pop("progress", None), StreamProgress) as (progress, display):
        task = as_task(dataset, {**options, "progress": progress})
        check_outside("--out", out, task.dataset)
        length = tasks or default_tasks(scenario, task.n_classes)
        settings = {name: dataclasses.replace(value, tasks=length) for name, value in checked.items()}
        if model is not None:
            check_outside("--export", model, task.dataset)
        streams = _plan_streams(task, settings, seeds, options.get("image_size") is not None, model)
        _check_report_folder(streams, out)
        runner = _StreamRunner(streams, tracker, observer or display or StreamObserver(), fresh=fresh)
        records = runner.run(workers, progress)
        if model is not None:
            _complete_model(model, streams[0].task, records[0], progress)
    comparison = compare_methods(records, command)
    path = write_streams(comparison, Path(out)).resolve()
    for record in records:
        tracker.add_files(record, [path.with_name(name) for name in FILES], model)
    return ContinualOutcome(comparison, path)


def _check_export(export: str | Path, scenario: str, streams: int) -> Path:
    """Returns the absolute path of the folder of a stream's model.

    Raises:
        UsageError: There are several streams, their model needs the task of an image, or the folder cannot be replaced.
    """
    from nbt.training.export.model_folder import check_export

    if streams != 1:
        raise UsageError(f"--export {export}: {streams} streams have {streams} models; give one --method and one seed")
    if scenario == "task":
        raise UsageError(
            f"--export {export}: a model of --scenario task needs the task of each image, which a model folder does "
            "not have; use --scenario class or data"
        )
    return check_export(export, "--export")


def _complete_model(model: Path, task: Task, record: StreamRecord, progress: Progress | None) -> None:
    """Adds the results on the test images of all tasks to the model of a stream.

    Raises:
        UsageError: The stream was finished earlier, and its model is not in the folder.
        NbtError: The training diverged, so that there is no model.
    """
    from nbt.inference.model import load_model
    from nbt.inference.model_card import complete_model_folder
    from nbt.training.export.model_folder import was_trained_with
    from nbt.tuning.finals.test_results import TestResult

    if record.result.diverged:
        raise NbtError(f"stream {record.config.name} diverged, so that there is no model; lower the learning rates")
    if not was_trained_with(model, record.config.settings.recipe):
        raise UsageError(
            f"--export {model}: stream {record.config.name} was finished earlier without a model; learn it again with "
            "--fresh"
        )
    found = load_model(model, "cpu").evaluate(task, part="test", progress=progress)
    test = TestResult(metric=found.metric, metrics=found.metrics, n=found.n)
    complete_model_folder(model, test=test, predictions=found.results, classes=found.class_results)


def check_streams(
    scenario: str,
    methods: Sequence[str] | Mapping[str, TransferSettings],
    tasks: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, ContinualSettings]:
    """Returns the checked settings of every method, without importing torch.

    Args:
        scenario: "data", "task" or "class".
        methods: Names of methods, or a mapping of names to recipes.
        tasks: Number of tasks of a stream; the default of `ContinualSettings` when None.
        more: Other fields of `ContinualSettings`.

    Raises:
        UsageError: An argument is invalid, or no method is given.
    """
    if not methods:
        raise UsageError("method: none given")
    if not isinstance(methods, Mapping):
        methods = {name: TransferSettings(**method_overrides(name, scenario)) for name in methods}
    fields = {"scenario": scenario, **(more or {}), **({} if tasks is None else {"tasks": tasks})}
    # The given recipes are checked before `repair` sets values without effect to their neutral values.
    settings = {name: ContinualSettings(recipe=recipe, **fields) for name, recipe in methods.items()}
    return {name: dataclasses.replace(value, recipe=repair(value.recipe)) for name, value in settings.items()}


def _plan_streams(
    task: Task,
    settings: Mapping[str, ContinualSettings],
    seeds: int,
    has_own_image_size: bool,
    export: Path | None,
) -> list[PlannedStream]:
    """Returns the streams in the order in which they run: all methods of a seed before the next seed.

    Args:
        task: The task.
        settings: Settings of every method.
        seeds: Number of streams per method.
        has_own_image_size: Whether the user gave the image size.
        export: Folder for the model of a single stream, or None.
    """
    from nbt.tuning.storage.stream_record import StreamConfig

    weights_hash = task.weights_hash
    return [
        PlannedStream(
            StreamConfig(
                method=method,
                settings=method_settings,
                seed=seed,
                dataset=task.dataset,
                backbone=task.backbone.text,
                weights=task.weights,
                image_size=task.image_size,
                data_hash=task.fingerprint,
                weights_hash=weights_hash,
                data_dir=task.data_dir,
                classes=task.classes,
                shots=task.shots,
                own_image_size=has_own_image_size,
            ),
            task.with_split_seed(seed),
            export,
        )
        for seed in range(task.seed, task.seed + seeds)
        for method, method_settings in settings.items()
    ]


def _check_report_folder(streams: Sequence[PlannedStream], out: str | Path) -> None:
    """Checks before the streams run that their report can be written.

    Raises:
        UsageError: A file is in the way, or a folder is not writable.
    """
    from nbt.report.files import report_folder
    from nbt.report.streams.write import FILES
    from nbt.tuning.storage.stream_record import stream_name

    configs = list({stream.config.method: stream.config for stream in streams}.values())
    seeds = list(dict.fromkeys(stream.config.seed for stream in streams))
    folder = report_folder(out, stream_name(configs, seeds))
    for name in FILES:
        check_writable_file("--out", folder / name)


class _StreamRunner:
    """Runs streams, and loads those that are already finished.

    Args:
        streams: All streams, in the order in which they start.
        tracker: Writer of the MLflow runs.
        observer: Observer of the streams.
        fresh: Whether to delete the stored results first.
    """

    def __init__(
        self, streams: Sequence[PlannedStream], tracker: StreamTracker, observer: StreamObserver, *, fresh: bool
    ) -> None:
        self.streams, self.tracker, self.observer, self.fresh = streams, tracker, observer, fresh

    def run(self, workers: int | str, progress: Progress | None) -> list[StreamRecord]:
        """Runs all unfinished streams and returns the records of all streams.

        Every stream that has to run is checked before the first one starts.

        Args:
            workers: Number of streams that run at a time, or "auto".
            progress: Receives a line on the number of workers.

        Raises:
            UsageError: A stream is invalid, or a stored stream of its name has another configuration.
            NbtError: A stream cannot be run or stored.
        """
        pending = [stream for stream in self.streams if self.fresh or not is_finished(stream.folder.read())]
        check_streams_to_run(pending)
        with ExitStack() as stack:
            self.observer.streams_planned(
                [stream.config for stream in self.streams],
                {stream.config.method: stream.memory for stream in pending if stream.memory is not None},
            )
            for stream in pending:
                stack.enter_context(stream.folder.held())
                if self.fresh:
                    stream.folder.forget()
            records = {stream.config.name: self._load(stream) for stream in self.streams if stream not in pending}
            if pending:
                records |= self._run(pending, workers, progress)
        return [records[stream.config.name] for stream in self.streams]

    def _load(self, stream: PlannedStream) -> StreamRecord:
        """Returns the record of a finished stream; MLflow receives it if it has not yet."""
        record = stream.folder.read()
        assert record is not None, "a stream that was finished before is unfinished now"
        if not self.tracker.is_logged(record, stream.folder.mark):
            stream.log_to(self.tracker, record)
        self.observer.stream_finished(record, kept=True)
        return record

    def _run(
        self, pending: Sequence[PlannedStream], workers: int | str, progress: Progress | None
    ) -> dict[str, StreamRecord]:
        """Runs streams to their end and returns their records by name."""
        from nbt.tuning.engines.factory import EngineFactory
        from nbt.tuning.stream_runner import STREAM_RUNNER

        curvature_bytes = max(stream.memory.nbytes if stream.memory is not None else 0 for stream in pending)
        source = StreamSource(pending, self.tracker, self.observer)
        with EngineFactory(
            "local", workers, max_runs=len(pending), runner=STREAM_RUNNER, extra_memory=curvature_bytes
        ) as factory:
            factory.make(pending[0].task, progress).run(source)
        return source.records
