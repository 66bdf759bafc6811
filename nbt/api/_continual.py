"""Runs task streams with several methods: task, methods, checkpoints, report and MLflow runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, Unpack

from nbt.api._load_task import TaskOptions, as_task
from nbt.errors import UsageError, require_positive
from nbt.paths import check_writable_folder
from nbt.settings import TransferSettings, repair
from nbt.settings.continual import ContinualSettings, default_tasks, method_overrides

if TYPE_CHECKING:
    from nbt.report.streams.comparison import Comparison
    from nbt.task.task import Task
    from nbt.tracking.stream_tracker import StreamTracker
    from nbt.training.continual.curvature_memory import CurvatureMemory
    from nbt.training.continual.results import ContinualResult, TaskScore
    from nbt.training.continual.scenarios import ContinualStage
    from nbt.training.worker.context import WorkerContext
    from nbt.tuning.storage.stream_record import StreamConfig, StreamRecord


class StreamObserver:
    """Base class of observers of task streams; every method does nothing unless it is overridden."""

    def streams_planned(self, configs: Sequence[StreamConfig], memory: Mapping[str, CurvatureMemory]) -> None:
        """Called once, before the first stream runs.

        Args:
            configs: All streams, in the order in which they run.
            memory: Method -> memory of its curvatures, for the methods that keep curvatures and have streams to run.
        """

    def stream_started(self, config: StreamConfig, scores: Sequence[TaskScore]) -> None:
        """Called when a stream starts or is resumed.

        Args:
            config: The stream.
            scores: Results of the tasks that were learnt in earlier sessions.
        """

    def task_finished(self, config: StreamConfig, score: TaskScore) -> None:
        """Called when a task of a stream has been learnt and tested."""

    def stream_finished(self, record: StreamRecord, *, kept: bool) -> None:
        """Called once per stream when it is finished.

        Args:
            record: The whole stream.
            kept: Whether the stream was already finished in an earlier session.
        """

    def update(self, label: str, done: int, total: int) -> None:
        """Called with the progress inside a stream.

        Args:
            label: The current task, such as "task 2 of 5".
            done: Epochs of the stream so far.
            total: Epochs of all its tasks.
        """


@dataclass(frozen=True)
class ContinualOutcome:
    """Result of `continual`.

    Attributes:
        comparison: The streams of every method.
        report_path: The HTML report; its folder contains the other files.
    """

    comparison: Comparison
    report_path: Path

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
    out: str | Path = "reports",
    tracking_uri: str | None = None,
    fresh: bool = False,
    observer: StreamObserver | None = None,
    command: str = "",
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
        out: Folder of the reports.
        tracking_uri: URI of the MLflow tracking store; `.nbt/mlflow.db` when None.
        fresh: Whether to delete the stored results of these streams first.
        observer: Observer of the streams.
        command: Shell command that reproduces the report, which shows it.
        more: Other fields of `ContinualSettings`.
        **options: Options of the task, see `TaskOptions`; not allowed with a loaded task.

    Returns:
        The comparison of the methods and the path of the report.

    Raises:
        UsageError: An argument is invalid; raised before any training.
        NbtError: A stream cannot continue; finished tasks stay stored.
    """
    from nbt.report.streams.comparison import compare_methods
    from nbt.report.streams.write import FILES, write_streams
    from nbt.tracking.stream_tracker import StreamTracker

    checked = check_streams(scenario, methods, tasks, more)
    require_positive(seeds=seeds)
    check_writable_folder("--out", out)
    tracker = StreamTracker(tracking_uri)
    task = as_task(dataset, options)
    length = tasks or default_tasks(scenario, task.n_classes)
    settings = {name: dataclasses.replace(value, tasks=length) for name, value in checked.items()}
    streams = _plan_streams(task, settings, seeds, options.get("image_size") is not None)
    records = _StreamRunner(streams, tracker, observer or StreamObserver(), fresh=fresh).run()
    comparison = compare_methods(records, command)
    path = write_streams(comparison, Path(out)).resolve()
    for record in records:
        tracker.add_files(record, [path.with_name(name) for name in FILES])
    return ContinualOutcome(comparison, path)


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


class _PlannedStream:
    """One stream that is to be run or loaded.

    Args:
        config: Configuration of the stream.
        task: Task with the split of the stream's seed.
    """

    def __init__(self, config: StreamConfig, task: Task) -> None:
        from nbt.tuning.storage.stream_folder import StreamFolder

        self.config, self.task = config, task
        self.folder = StreamFolder(stream_folder(config.name), config)

    @cached_property
    def stages(self) -> tuple[ContinualStage, ...]:
        """The tasks of the stream."""
        from nbt.training.continual.scenarios import make_stages

        settings = self.config.settings
        return make_stages(self.task, settings.scenario, settings.tasks, self.config.seed)

    @cached_property
    def memory(self) -> CurvatureMemory | None:
        """The memory of its curvatures; None if its method keeps none."""
        from nbt.training.continual.curvature_memory import curvature_memory

        return curvature_memory(self.task, self.config.settings)

    def check(self) -> None:
        """Checks the stream as far as possible without a worker context.

        Raises:
            UsageError: The dataset does not allow such tasks, the recipe is invalid for a task or lacks its starting
                weights, or the curvatures exceed the memory bound.
        """
        from nbt.training.continual.curvature_memory import check_curvature_memory
        from nbt.training.recipe.checks import check_recipe, check_starting_weights

        task, recipe = self.task, self.config.settings.recipe
        teacher = None if task.teacher is None else task.teacher.name
        check_starting_weights(recipe, task.backbone, task.dataset, task.weights, teacher=teacher)
        for stage in self.stages:
            check_recipe(recipe, len(stage.train))
        check_curvature_memory(self.task, self.config.settings)

    def record(self, result: ContinualResult, started: datetime, device: str) -> StreamRecord:
        """Returns the record of the stream.

        Args:
            result: Results of the tasks learnt so far.
            started: Start of the stream.
            device: Device of the training.
        """
        from nbt.task.summary import dataset_summary
        from nbt.tuning.storage.stream_record import StreamRecord

        return StreamRecord(
            config=self.config,
            result=result,
            images=tuple(len(stage.test) for stage in self.stages),
            class_names=self.task.class_names,
            started=started,
            curvature_bytes=0 if self.memory is None else self.memory.nbytes,
            facts={**dataset_summary(self.task), "device": device},
        )

    def partial_result(self, scores: Sequence[TaskScore]) -> ContinualResult:
        """Returns the result of the tasks learnt so far, without the accuracies before the first task."""
        from nbt.training.continual.results import ContinualResult
        from nbt.training.continual.scenarios import class_order

        order = class_order(self.task, self.stages)
        return ContinualResult(self.config.settings, self.config.seed, "test", order, tuple(scores))


def _plan_streams(
    task: Task, settings: Mapping[str, ContinualSettings], seeds: int, has_own_image_size: bool
) -> list[_PlannedStream]:
    """Returns the streams in the order in which they run: all methods of a seed before the next seed.

    Args:
        task: The task.
        settings: Settings of every method.
        seeds: Number of streams per method.
        has_own_image_size: Whether the user gave the image size.
    """
    from nbt.tuning.storage.stream_record import StreamConfig

    weights_hash = task.weights_hash
    return [
        _PlannedStream(
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
        )
        for seed in range(task.seed, task.seed + seeds)
        for method, method_settings in settings.items()
    ]


def stream_folder(name: str) -> Path:
    """Returns the folder that stores a stream: `.nbt/streams/<name>` in the working directory."""
    return Path.cwd() / ".nbt" / "streams" / name


class _StreamRunner:
    """Runs streams, and loads those that are already finished.

    Args:
        streams: All streams, in the order in which they run.
        tracker: Writer of the MLflow runs.
        observer: Observer of the streams.
        fresh: Whether to delete the stored results first.
    """

    def __init__(
        self, streams: Sequence[_PlannedStream], tracker: StreamTracker, observer: StreamObserver, *, fresh: bool
    ) -> None:
        self.streams, self.tracker, self.observer, self.fresh = streams, tracker, observer, fresh

    def run(self) -> list[StreamRecord]:
        """Runs all unfinished streams and returns the records of all streams.

        Every stream that has to run is checked before the first one starts.

        Raises:
            UsageError: A stream is invalid, or a stored stream of its name has another configuration.
            NbtError: A stream cannot be run or stored.
        """
        pending = [stream for stream in self.streams if self.fresh or not _is_finished(stream.folder.read())]
        with ExitStack() as stack:
            context = self._prepare(pending, stack)
            self.observer.streams_planned(
                [stream.config for stream in self.streams],
                {stream.config.method: stream.memory for stream in pending if stream.memory is not None},
            )
            for stream in pending:
                stack.enter_context(stream.folder.held())
                if self.fresh:
                    stream.folder.forget()
            return [self._load_or_run(stream, context) for stream in self.streams]

    def _prepare(self, pending: Sequence[_PlannedStream], stack: ExitStack) -> WorkerContext | None:
        """Checks the pending streams and returns a worker context for them; None if nothing has to run."""
        from nbt.training.worker.context import WorkerContext

        if not pending:
            return None
        for stream in pending:
            stream.check()
        context = WorkerContext(pending[0].task)
        stack.callback(context.close)
        if any(stream.config.settings.recipe.linearized for stream in pending):
            context.check_linearizable()
        return context

    def _load_or_run(self, stream: _PlannedStream, context: WorkerContext | None) -> StreamRecord:
        """Returns the record of a finished stream, which is loaded, or run to its end."""
        earlier = stream.folder.read()
        if _is_finished(earlier):
            record, kept = earlier, True
        else:
            assert context is not None, "a stream that was finished before is unfinished now"
            record, kept = self._run_stream(stream, earlier, context), False
        if not kept or not self.tracker.is_logged(record, stream.folder.mark):
            self._log_to_tracker(stream, record)
        self.observer.stream_finished(record, kept=kept)
        return record

    def _log_to_tracker(self, stream: _PlannedStream, record: StreamRecord) -> None:
        if self.tracker.stream_ended(record):
            stream.folder.set_sync_marker(self.tracker.mark(record))

    def _run_stream(self, stream: _PlannedStream, earlier: StreamRecord | None, context: WorkerContext) -> StreamRecord:
        """Runs a stream from its last checkpoint to its end; if it is interrupted, MLflow gets the finished tasks."""
        from nbt.training.continual.run import run_continual

        config, device = stream.config, str(context.device)
        started = datetime.now(UTC) if earlier is None else earlier.started
        scores = [] if earlier is None or not stream.folder.checkpoint.exists() else list(earlier.result.scores)
        self.observer.stream_started(config, scores)
        run = run_continual(
            stream.task,
            config.settings,
            config.seed,
            context=context,
            checkpoint=stream.folder.checkpoint,
            progress=self.observer.update,
        )
        record = None
        try:
            while True:
                score = next(run)
                # If the checkpoint cannot be used, the stream starts again at its first task.
                scores = [*scores[: score.task - 1], score]
                if len(scores) == score.task:
                    record = stream.record(stream.partial_result(scores), started, device)
                    stream.folder.write(record)
                self.observer.task_finished(config, score)
                if record is not None:
                    self.tracker.log_progress(record)
        except StopIteration as end:
            record = stream.record(end.value, started, device)
            stream.folder.write(record)
            return record
        except BaseException:
            if record is not None:
                self.tracker.stream_ended(record)
            raise


def _is_finished(record: StreamRecord | None) -> TypeGuard[StreamRecord]:
    return record is not None and record.finished
