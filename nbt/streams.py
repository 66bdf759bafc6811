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

from nbt.errors import UsageError, check_counts
from nbt.pipeline import TaskOptions, as_task
from nbt.settings import TransferSettings, repair
from nbt.training.continual_settings import ContinualSettings, default_tasks, method_overrides
from nbt.writable import check_folder

if TYPE_CHECKING:
    from nbt.report.continual.comparison import Comparison
    from nbt.report.continual.record import StreamConfig, StreamRecord
    from nbt.task.task import Task
    from nbt.tracking_streams import StreamTracker
    from nbt.training.continual_memory import CurvatureMemory
    from nbt.training.continual_results import ContinualResult, TaskScore
    from nbt.training.scenarios import Part
    from nbt.training.workbench import Workbench


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

    def stage(self, label: str, done: int, total: int) -> None:
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
        dataset: As in `nbt.pipeline.load_task`, or what that loaded.
        scenario: "data", "task" or "class".
        methods: Names, or names with their recipes; the first is what the others are compared to.
        tasks: Length of the streams; `nbt.training.continual_settings.default_tasks` when None.
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
    from nbt.report.continual.comparison import compare
    from nbt.report.continual.write import FILES, write_streams
    from nbt.tracking_streams import StreamTracker

    plain = check_streams(scenario, methods, tasks, more)
    check_counts(seeds=seeds)
    check_folder("--out", out)
    tracker = StreamTracker(tracking_uri)
    task = as_task(dataset, options)
    length = tasks or default_tasks(scenario, task.n_classes)
    settings = {name: dataclasses.replace(one, tasks=length) for name, one in plain.items()}
    streams = _plan(task, settings, seeds, options.get("image_size") is not None)
    records = _Session(streams, tracker, observer or StreamObserver(), fresh=fresh).run()
    comparison = compare(records, command)
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


class _Stream:
    """One stream of a plan.

    Args:
        config: What defines it.
        task: With the split of its seed.
    """

    def __init__(self, config: StreamConfig, task: Task) -> None:
        from nbt.report.continual.kept import Kept

        self.config, self.task = config, task
        self.kept = Kept(stream_folder(config.name), config)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Its tasks."""
        from nbt.training.scenarios import make_parts

        settings = self.config.settings
        return make_parts(self.task, settings.scenario, settings.tasks, self.config.seed)

    @cached_property
    def memory(self) -> CurvatureMemory | None:
        """What its curvatures will take, None where its method keeps none."""
        from nbt.training.continual_memory import curvature_memory

        return curvature_memory(self.task, self.config.settings)

    def check(self) -> None:
        """Checks all that can be without a workbench.

        Raises:
            UsageError: The dataset does not give such tasks, the recipe makes no sense for one or has nothing to start
                from, or the curvatures do not fit the memory.
        """
        from nbt.training.continual_memory import check_memory
        from nbt.training.recipe import check_recipe, check_start

        task, recipe = self.task, self.config.settings.recipe
        teacher = None if task.teacher is None else task.teacher.name
        check_start(recipe, task.backbone, task.dataset, task.weights, teacher=teacher)
        for part in self.parts:
            check_recipe(recipe, len(part.train))
        check_memory(self.task, self.config.settings)

    def record(self, result: ContinualResult, started: datetime, device: str) -> StreamRecord:
        """Returns the stream as far as it is."""
        from nbt.report.continual.record import StreamRecord
        from nbt.task.load import dataset_facts

        return StreamRecord(
            config=self.config,
            result=result,
            images=tuple(len(part.test) for part in self.parts),
            class_names=self.task.class_names,
            started=started,
            curvature_bytes=0 if self.memory is None else self.memory.nbytes,
            facts={**dataset_facts(self.task), "device": device},
        )

    def so_far(self, scores: Sequence[TaskScore]) -> ContinualResult:
        """Returns what the tasks learnt so far make; accuracies before the first are told when the stream is over."""
        from nbt.training.continual_results import ContinualResult
        from nbt.training.scenarios import class_order

        order = class_order(self.task, self.parts)
        return ContinualResult(self.config.settings, self.config.seed, "test", order, tuple(scores))


def _plan(task: Task, settings: Mapping[str, ContinualSettings], seeds: int, own_size: bool) -> list[_Stream]:
    """Returns the streams in the order in which they run: seed after seed, so that methods can be compared early."""
    from nbt.report.continual.record import StreamConfig
    from nbt.task.weights import hash_weights

    weights_hash = hash_weights(task.w0)
    return [
        _Stream(
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
                own_image_size=own_size,
            ),
            task.with_split_seed(seed),
        )
        for seed in range(task.seed, task.seed + seeds)
        for method, one in settings.items()
    ]


def stream_folder(name: str) -> Path:
    """Returns where a stream is kept: `.nbt/streams/<name>` in the working directory."""
    return Path.cwd() / ".nbt" / "streams" / name


class _Session:
    """Runs the streams of a plan that are not kept.

    Args:
        streams: All of the plan.
        fresh: Whether to forget what is kept.
        tracker: Writes MLflow.
        observer: Told of how it goes.
    """

    def __init__(
        self, streams: Sequence[_Stream], tracker: StreamTracker, observer: StreamObserver, *, fresh: bool
    ) -> None:
        self.streams, self.tracker, self.observer, self.fresh = streams, tracker, observer, fresh

    def run(self) -> list[StreamRecord]:
        """Returns all streams, finished; those that are to be run are checked before the first begins."""
        waiting = [one for one in self.streams if self.fresh or not _is_finished(one.kept.read())]
        with ExitStack() as stack:
            bench = self._prepare(waiting, stack)
            self.observer.streams_planned(
                [one.config for one in self.streams],
                {one.config.method: one.memory for one in waiting if one.memory is not None},
            )
            for one in waiting:
                stack.enter_context(one.kept.held())
                if self.fresh:
                    one.kept.forget()
            return [self._finished(one, bench) for one in self.streams]

    def _prepare(self, waiting: Sequence[_Stream], stack: ExitStack) -> Workbench | None:
        from nbt.training.workbench import Workbench

        if not waiting:
            return None
        for one in waiting:
            one.check()
        bench = Workbench(waiting[0].task)
        stack.callback(bench.close)
        if any(one.config.settings.recipe.linearized for one in waiting):
            bench.check_linearizable()
        return bench

    def _finished(self, stream: _Stream, bench: Workbench | None) -> StreamRecord:
        """Returns a finished stream: the kept one, or run from where it was stopped."""
        earlier = stream.kept.read()
        kept = earlier if _is_finished(earlier) else None
        if kept is None:
            assert bench is not None, "what is finished stays finished"
            record = self._learn(stream, earlier, bench)
        else:
            record = kept
        if kept is None or not self.tracker.was_told(record, stream.kept.mark):
            self._tell(stream, record)
        self.observer.stream_finished(record, kept=kept is not None)
        return record

    def _tell(self, stream: _Stream, record: StreamRecord) -> None:
        if self.tracker.stream_ended(record):
            stream.kept.set_mark(self.tracker.mark(record))

    def _learn(self, stream: _Stream, earlier: StreamRecord | None, bench: Workbench) -> StreamRecord:
        """Runs a stream to its end; of one that is stopped, MLflow is told that it was."""
        from nbt.training.continual import run_continual

        config, device = stream.config, str(bench.device)
        started = datetime.now(UTC) if earlier is None else earlier.started
        scores = [] if earlier is None or not stream.kept.checkpoint.exists() else list(earlier.result.scores)
        self.observer.stream_started(config, scores)
        run = run_continual(
            stream.task,
            config.settings,
            config.seed,
            bench=bench,
            checkpoint=stream.kept.checkpoint,
            progress=self.observer.stage,
        )
        record = None
        try:
            while True:
                score = next(run)
                # A checkpoint that could not be used makes the stream begin again, whatever was kept of it.
                scores = [*scores[: score.task - 1], score]
                if len(scores) == score.task:
                    record = stream.record(stream.so_far(scores), started, device)
                    stream.kept.write(record)
                self.observer.task_finished(config, score)
                if record is not None:
                    self.tracker.stream_went_on(record)
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
