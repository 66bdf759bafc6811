"""Streams of tasks, put together: task, methods, checkpoints, report, MLflow. Nothing here is clever."""

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
    """Is told how streams go, and does nothing; to be derived from."""

    def streams_planned(self, configs: Sequence[StreamConfig], memory: Mapping[str, CurvatureMemory]) -> None:
        """Takes all streams, in the order in which they will run, and what the curvatures of a method take."""

    def stream_started(self, config: StreamConfig, scores: Sequence[TaskScore]) -> None:
        """Takes a stream that begins or goes on, and the tasks that it learnt in earlier sessions."""

    def task_finished(self, config: StreamConfig, score: TaskScore) -> None:
        """Takes a task that was learnt."""

    def stream_finished(self, record: StreamRecord, *, kept: bool) -> None:
        """Takes a whole stream; `kept` where it was finished before."""

    def update(self, label: str, done: int, total: int) -> None:
        """Takes how far something is: of a stream "task 2 of 5", its epochs so far and those of all tasks."""


@dataclass(frozen=True)
class ContinualOutcome:
    """What `continual` leaves behind.

    Attributes:
        comparison: Every method's streams.
        report_path: The HTML report; its folder holds everything else.
    """

    comparison: Comparison
    report_path: Path

    def to_json(self) -> dict[str, Any]:
        """Returns the result in JSON types: the report's path, then what `stream.json` has."""
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
    """Learns streams of tasks by several methods, and writes MLflow runs and the report that compares them.

    The same call again goes on where it was stopped, and gives what is finished at once.

    Args:
        dataset: As in `nbt.api.load_task`, or what that loaded.
        scenario: "data", "task" or "class".
        methods: Names, or names with their recipes; the first is what the others are compared to.
        tasks: Length of the streams; `nbt.settings.continual.default_tasks` when None.
        seeds: Streams of each method, with the seeds from the task's own on: each has an order, a training and a
            train/validation split of its own, the same for all methods.
        out: Folder of reports.
        tracking_uri: Of MLflow; `.nbt/mlflow.db` when None.
        fresh: Forget what is kept of these streams.
        observer: Told of how it goes.
        command: Shell command that makes the report again, to be shown there.
        more: Other fields of `ContinualSettings`.
        **options: Of the task, see `TaskOptions`; not with a loaded task.

    Raises:
        UsageError: Something given is wrong; before anything is trained.
        NbtError: It cannot go on; what was finished is kept.
    """
    from nbt.report.streams.comparison import compare_methods
    from nbt.report.streams.write import FILES, write_streams
    from nbt.tracking.stream_tracker import StreamTracker

    plain = check_streams(scenario, methods, tasks, more)
    require_positive(seeds=seeds)
    check_writable_folder("--out", out)
    tracker = StreamTracker(tracking_uri)
    task = as_task(dataset, options)
    length = tasks or default_tasks(scenario, task.n_classes)
    settings = {name: dataclasses.replace(one, tasks=length) for name, one in plain.items()}
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
    """Returns the settings of every method, without torch; their length is a guess where `tasks` is None.

    Args:
        scenario: As in `continual`, and so are the others.
        methods: Names, or names with their recipes.
        tasks: Length of the streams.
        more: Other fields of `ContinualSettings`.

    Raises:
        UsageError: Something is wrong.
    """
    if not methods:
        raise UsageError("method: none given")
    if not isinstance(methods, Mapping):
        methods = {name: TransferSettings(**method_overrides(name, scenario)) for name in methods}
    fields = {"scenario": scenario, **(more or {}), **({} if tasks is None else {"tasks": tasks})}
    # What makes no sense is refused as it was asked for; what has no effect is then set to its neutral value.
    asked = {name: ContinualSettings(recipe=recipe, **fields) for name, recipe in methods.items()}
    return {name: dataclasses.replace(one, recipe=repair(one.recipe)) for name, one in asked.items()}


class _PlannedStream:
    """One stream of a plan.

    Args:
        config: What defines it.
        task: With the split of its seed.
    """

    def __init__(self, config: StreamConfig, task: Task) -> None:
        from nbt.tuning.storage.stream_folder import StreamFolder

        self.config, self.task = config, task
        self.kept = StreamFolder(stream_folder(config.name), config)

    @cached_property
    def stages(self) -> tuple[ContinualStage, ...]:
        """Its tasks."""
        from nbt.training.continual.scenarios import make_stages

        settings = self.config.settings
        return make_stages(self.task, settings.scenario, settings.tasks, self.config.seed)

    @cached_property
    def memory(self) -> CurvatureMemory | None:
        """What its curvatures will take, None where its method keeps none."""
        from nbt.training.continual.curvature_memory import curvature_memory

        return curvature_memory(self.task, self.config.settings)

    def check(self) -> None:
        """Checks all that can be without a workbench.

        Raises:
            UsageError: The dataset does not give such tasks, the recipe makes no sense for one or has nothing to start
                from, or the curvatures do not fit the memory.
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
        """Returns the stream as far as it is."""
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
        """Returns what the tasks learnt so far make; accuracies before the first are told when the stream is over."""
        from nbt.training.continual.results import ContinualResult
        from nbt.training.continual.scenarios import class_order

        order = class_order(self.task, self.stages)
        return ContinualResult(self.config.settings, self.config.seed, "test", order, tuple(scores))


def _plan_streams(
    task: Task, settings: Mapping[str, ContinualSettings], seeds: int, has_own_image_size: bool
) -> list[_PlannedStream]:
    """Returns the streams in the order in which they run: seed after seed, so that methods can be compared early."""
    from nbt.models.weights import hash_weights
    from nbt.tuning.storage.stream_record import StreamConfig

    weights_hash = hash_weights(task.w0)
    return [
        _PlannedStream(
            StreamConfig(
                method=method,
                settings=one,
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
        for method, one in settings.items()
    ]


def stream_folder(name: str) -> Path:
    """Returns where a stream is kept: `.nbt/streams/<name>` in the working directory."""
    return Path.cwd() / ".nbt" / "streams" / name


class _StreamRunner:
    """Runs the streams of a plan that are not kept.

    Args:
        streams: All of the plan.
        fresh: Whether to forget what is kept.
        tracker: Writes MLflow.
        observer: Told of how it goes.
    """

    def __init__(
        self, streams: Sequence[_PlannedStream], tracker: StreamTracker, observer: StreamObserver, *, fresh: bool
    ) -> None:
        self.streams, self.tracker, self.observer, self.fresh = streams, tracker, observer, fresh

    def run(self) -> list[StreamRecord]:
        """Returns all streams, finished; those that are to be run are checked before the first begins."""
        waiting = [one for one in self.streams if self.fresh or not _is_finished(one.kept.read())]
        with ExitStack() as stack:
            context = self._prepare(waiting, stack)
            self.observer.streams_planned(
                [one.config for one in self.streams],
                {one.config.method: one.memory for one in waiting if one.memory is not None},
            )
            for one in waiting:
                stack.enter_context(one.kept.held())
                if self.fresh:
                    one.kept.forget()
            return [self._load_or_run(one, context) for one in self.streams]

    def _prepare(self, waiting: Sequence[_PlannedStream], stack: ExitStack) -> WorkerContext | None:
        from nbt.training.worker.context import WorkerContext

        if not waiting:
            return None
        for one in waiting:
            one.check()
        context = WorkerContext(waiting[0].task)
        stack.callback(context.close)
        if any(one.config.settings.recipe.linearized for one in waiting):
            context.check_linearizable()
        return context

    def _load_or_run(self, stream: _PlannedStream, context: WorkerContext | None) -> StreamRecord:
        """Returns a finished stream: the kept one, or run from where it was stopped."""
        earlier = stream.kept.read()
        kept = earlier if _is_finished(earlier) else None
        if kept is None:
            assert context is not None, "what is finished stays finished"
            record = self._run_stream(stream, earlier, context)
        else:
            record = kept
        if kept is None or not self.tracker.is_logged(record, stream.kept.mark):
            self._log_to_tracker(stream, record)
        self.observer.stream_finished(record, kept=kept is not None)
        return record

    def _log_to_tracker(self, stream: _PlannedStream, record: StreamRecord) -> None:
        if self.tracker.stream_ended(record):
            stream.kept.set_sync_marker(self.tracker.mark(record))

    def _run_stream(self, stream: _PlannedStream, earlier: StreamRecord | None, context: WorkerContext) -> StreamRecord:
        """Runs a stream to its end; of one that is stopped, MLflow is told that it was."""
        from nbt.training.continual.run import run_continual

        config, device = stream.config, str(context.device)
        started = datetime.now(UTC) if earlier is None else earlier.started
        scores = [] if earlier is None or not stream.kept.checkpoint.exists() else list(earlier.result.scores)
        self.observer.stream_started(config, scores)
        run = run_continual(
            stream.task,
            config.settings,
            config.seed,
            context=context,
            checkpoint=stream.kept.checkpoint,
            progress=self.observer.update,
        )
        record = None
        try:
            while True:
                score = next(run)
                # A checkpoint that could not be used makes the stream begin again, whatever was kept of it.
                scores = [*scores[: score.task - 1], score]
                if len(scores) == score.task:
                    record = stream.record(stream.partial_result(scores), started, device)
                    stream.kept.write(record)
                self.observer.task_finished(config, score)
                if record is not None:
                    self.tracker.log_progress(record)
        except StopIteration as end:
            record = stream.record(end.value, started, device)
            stream.kept.write(record)
            return record
        except BaseException:
            if record is not None:
                self.tracker.stream_ended(record)
            raise


def _is_finished(record: StreamRecord | None) -> TypeGuard[StreamRecord]:
    return record is not None and record.finished
