"""Task streams that are planned, and the trial source that runs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from nbt.errors import NbtError

if TYPE_CHECKING:
    from nbt.task.task import Task
    from nbt.tracking.stream_tracker import StreamTracker
    from nbt.training.continual.curvature_memory import CurvatureMemory
    from nbt.training.continual.results import ContinualResult, TaskScore
    from nbt.training.continual.scenarios import ContinualStage
    from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
    from nbt.tuning.storage.stream_record import StreamConfig, StreamObserver, StreamRecord


class PlannedStream:
    """One stream that is to be run or loaded.

    Args:
        config: Configuration of the stream.
        task: Task with the split of the stream's seed.
        export: Folder for its model, or None.
    """

    def __init__(self, config: StreamConfig, task: Task, export: Path | None = None) -> None:
        from nbt.tuning.storage.stream_folder import StreamFolder

        self.config, self.task, self.export = config, task, export
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
        """Checks the stream as far as possible without training.

        Raises:
            UsageError: The dataset does not allow such tasks, the recipe is invalid for a task or lacks its starting
                weights, or the curvatures exceed the memory bound.
        """
        from nbt.training.continual.curvature_memory import check_curvature_memory
        from nbt.training.recipe.checks import check_recipe, check_starting_weights

        task, recipe = self.task, self.config.settings.recipe
        teachers = [teacher.name for teacher in task.teachers]
        check_starting_weights(recipe, task.backbone, task.dataset, task.weights, teachers=teachers)
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

    def log_to(self, tracker: StreamTracker, record: StreamRecord) -> None:
        """Writes the finished stream to MLflow and stores that it is there."""
        if tracker.stream_ended(record):
            self.folder.set_sync_marker(tracker.mark(record))


def stream_folder(name: str) -> Path:
    """Returns the folder that stores a stream: `.nbt/streams/<name>` in the working directory."""
    return Path.cwd() / ".nbt" / "streams" / name


def is_finished(record: StreamRecord | None) -> TypeGuard[StreamRecord]:
    """Returns whether a stored stream has learnt all its tasks."""
    return record is not None and record.finished


def check_streams_to_run(streams: Sequence[PlannedStream]) -> None:
    """Checks streams before the first one starts.

    Raises:
        UsageError: See `PlannedStream.check`; or a network cannot be linearised.
    """
    for stream in streams:
        stream.check()
    if any(stream.config.settings.recipe.linearized for stream in streams):
        import torch

        from nbt.transfer.linearize import check_linearizable

        task = streams[0].task
        images = torch.zeros(2, 3, task.image_size, task.image_size)
        check_linearizable(task.build_model(), images, name=task.backbone.text)


@dataclass(eq=False)
class _RunningStream:
    """A stream that runs, with the results of its tasks so far.

    Attributes:
        stream: The stream.
        started: Start of the stream, in an earlier session if it was interrupted.
        scores: Results of its tasks.
        record: Its last stored record of this session.
        device: Device of the training.
    """

    stream: PlannedStream
    started: datetime
    scores: list[TaskScore]
    record: StreamRecord | None = None
    device: str = ""

    def add(self, score: TaskScore) -> StreamRecord | None:
        """Adds the result of a task; stores and returns the record unless earlier tasks are missing."""
        # If the checkpoint cannot be used, the stream starts again at its first task.
        self.scores = [*self.scores[: score.task - 1], score]
        if len(self.scores) == score.task:
            self.store(self.stream.partial_result(self.scores))
        return self.record

    def store(self, result: ContinualResult) -> StreamRecord:
        """Stores and returns the record of a result."""
        self.record = self.stream.record(result, self.started, self.device)
        self.stream.folder.write(self.record)
        return self.record


class StreamSource:
    """The trial source of task streams (`nbt.tuning.engines.base.TrialSource`); makes all writes on the driver.

    Args:
        streams: The streams to run, in the order in which they start.
        tracker: Writer of the MLflow runs.
        observer: Observer of the streams.

    Attributes:
        records: Records of the streams that have ended, by name.
    """

    def __init__(self, streams: Sequence[PlannedStream], tracker: StreamTracker, observer: StreamObserver) -> None:
        self._pending, self._tracker, self._observer = deque(streams), tracker, observer
        self._running: dict[str, _RunningStream] = {}
        self.records: dict[str, StreamRecord] = {}

    def next_trial(self) -> TrialSpec | None:
        """Returns the next stream, which continues from its checkpoint; None if none is left."""
        from nbt.tuning.stream_runner import StreamSpec

        if not self._pending:
            return None
        stream = self._pending.popleft()
        config, checkpoint, earlier = stream.config, stream.folder.checkpoint, stream.folder.read()
        started = datetime.now(UTC) if earlier is None else earlier.started
        scores = [] if earlier is None or not checkpoint.exists() else list(earlier.result.scores)
        self._running[config.name] = _RunningStream(stream, started, scores)
        self._observer.stream_started(config, scores)
        return StreamSpec(
            key=config.name,
            settings=config.settings.recipe,
            seed=config.seed,
            split_seed=config.seed,
            checkpoint=checkpoint,
            stream=config.settings,
            export=stream.export,
        )

    def on_placed(self, spec: TrialSpec, location: Mapping[str, Any]) -> None:
        """Notes the device of a stream."""
        self._running[spec.key].device = str(location.get("device", ""))

    def on_epoch(self, spec: TrialSpec, result: EpochResult) -> str | None:
        """Stores the result of a task, or reports the progress of a stream, which is never stopped."""
        from nbt.tuning.stream_runner import StreamEvent

        assert isinstance(result, StreamEvent)
        run = self._running[spec.key]
        config = run.stream.config
        if result.task_score is None:
            self._observer.stream_progress(config, result.label, result.done, result.total)
            return None
        record = run.add(result.task_score)
        self._observer.task_finished(config, result.task_score)
        if record is not None:
            self._tracker.log_progress(record)
        return None

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Stores a finished stream.

        Raises:
            NbtError: The stream failed.
        """
        from nbt.tuning.stream_runner import STREAM_RESULT

        run = self._running.pop(spec.key)
        if outcome.error is not None:
            self._log_unfinished(run)
            raise NbtError(f"stream {spec.key}: {outcome.error}")
        record = self.records[spec.key] = run.store(outcome.facts[STREAM_RESULT])
        run.stream.log_to(self._tracker, record)
        self._observer.stream_finished(record, kept=False)

    def on_abandoned(self, spec: TrialSpec) -> None:
        """Queues a stream that the engine returned unfinished; MLflow receives its finished tasks."""
        run = self._running.pop(spec.key)
        self._log_unfinished(run)
        self._pending.appendleft(run.stream)

    def _log_unfinished(self, run: _RunningStream) -> None:
        if run.record is not None:
            self._tracker.stream_ended(run.record)
