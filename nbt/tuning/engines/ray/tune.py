"""The adapter to Ray Tune: a searcher and a scheduler that forward to the request queue, and the trainable.

Ray Tune places actors, keeps them between trials and detects their death; it makes no decisions. A trial of Tune is
one attempt at a trial of nbt: `nbt.tuning.engines.distributed.supervisor` decides about retries, because Tune gives up
a trial whose actor dies while the trial is assigned to it, even with `max_failures`. Tune's own state is never read.
"""

from __future__ import annotations

import functools
import logging
import os
import pickle
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError
from ray.train._internal import storage
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from nbt.tuning.engines.distributed.checkpoint_rate_limiter import CheckpointRateLimiter
from nbt.tuning.engines.distributed.protocol import WorkerLocation
from nbt.tuning.engines.distributed.request_queue import EngineClosed, RequestQueue
from nbt.tuning.engines.distributed.task_serialization import from_shared_arrays
from nbt.tuning.engines.distributed.trial_thread import TrialThread
from nbt.tuning.engines.locked_directory import LockedDirectory
from nbt.tuning.engines.worker import Runner, WorkerSetup

_log = logging.getLogger("nbt")

_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output is printed to stdout even with verbose=0
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # its state is never read back
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

_GRACE_SECONDS = 5


def run_tune(
    request_queue: RequestQueue, task_ref: Any, setup: dict[str, Any], *, max_concurrent: int, folder: Path
) -> None:
    """Runs Ray Tune until the request queue is closed.

    Args:
        request_queue: Queue for the requests of Tune's thread.
        task_ref: Reference to the task in Ray's object store, as converted by `to_shared_arrays`.
        setup: Options of the workers: "device", "cache_bytes", "runner", "log_level", "max_concurrent" and
            "checkpoint_bytes_per_second".
        max_concurrent: Maximum number of concurrent trials.
        folder: Folder for the files that Tune writes, which are never read.
    """
    os.environ.update(_ENVIRONMENT)
    # This logger reports every attempt that is retried as an error.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        # Tune stages its state in the session folder of a node; a driver connected over ray:// has none.
        storage._get_ray_train_session_dir = lambda: str(folder)  # type: ignore[attr-defined]
    tune.run(
        tune.with_parameters(RayWorker, task_ref=[task_ref], worker_options=setup),
        name="nbt",
        search_alg=_Searcher(request_queue),
        scheduler=_Scheduler(request_queue, max_concurrent),
        num_samples=-1,
        max_concurrent_trials=max_concurrent,
        reuse_actors=True,
        max_failures=0,
        raise_on_failed_trial=False,
        storage_path=str(folder),
        trial_dirname_creator=lambda trial: trial.trial_id,
        callbacks=[_SilentReporter()],
        verbose=0,
        _remote=False,  # with a ray:// address Tune would otherwise run the searcher and the supervisor on the head
    )


class _SilentReporter(TrialProgressCallback):
    """Prints nothing; without it Tune adds its own reporter, which prints one line per trial even with verbose=0."""

    def _print(self, msg: str) -> None:
        """Does nothing: the caller displays the progress of the study."""


class _Searcher(Searcher):
    """Returns the assignments of the supervisor to Tune."""

    def __init__(self, request_queue: RequestQueue) -> None:
        super().__init__()
        self._request_queue = request_queue

    def suggest(self, trial_id: str) -> Any:
        try:
            assignment = self._request_queue.next_assignment(trial_id)
        except EngineClosed:
            return Searcher.FINISHED
        return None if assignment is None else {"assignment": assignment}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Does nothing: the scheduler reports the end of trials."""

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the study's storage has the whole state."""


class _Scheduler(TrialScheduler):
    """Forwards messages of workers to the request queue, and decisions to workers."""

    def __init__(self, request_queue: RequestQueue, max_concurrent: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._request_queue, self._max_concurrent = request_queue, max_concurrent
        self._cached_resources: Any = None

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        message = result["message"]
        decision = self._request_queue.handle_message(trial.trial_id, message)
        message.drop_files()
        trial.config["assignment"].checkpoint = None
        if decision.finished:
            if decision.retire_worker:
                _retire_actor(controller, trial)
            return str(TrialScheduler.STOP)
        if decision.stop_reason is not None:
            # STOP would end the attempt without an outcome and without removing its files. The actor receives this call
            # before the call of its next step.
            actor: Any = trial.temporary_state.ray_actor
            actor.request_stop.remote(decision.stop_reason)
        return str(TrialScheduler.CONTINUE)

    def on_trial_error(self, controller: Any, trial: Trial) -> None:
        self._request_queue.handle_worker_lost(trial.trial_id, *_failure_reason(trial))

    def choose_trial_to_run(self, controller: Any) -> None:
        """Stops abandoned attempts, as Tune calls this in every step; it starts pending trials by itself."""
        live = {trial.trial_id: trial for trial in controller.get_live_trials()}
        for attempt in self._request_queue.pop_abandoned(list(live)):
            controller.stop_trial(live[attempt])

    def on_trial_add(self, controller: Any, trial: Trial) -> None:
        """Lets Tune keep all idle actors; by default it keeps one, and the finals would have to start new ones."""
        resources = trial.placement_group_factory
        if resources == self._cached_resources:
            return
        inner = getattr(controller, "_tune_controller", controller)
        # At the end Tune waits this long for its actors, then kills those that are still in an epoch.
        inner._actor_force_cleanup_timeout = _GRACE_SECONDS
        cache = getattr(inner, "_actor_cache", None)
        if cache is not None:
            if self._cached_resources is not None:
                cache.decrease_max(self._cached_resources, by=self._max_concurrent)
            cache.increase_max(resources, by=self._max_concurrent)
            self._cached_resources = resources

    def on_trial_complete(self, controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Does nothing: the supervisor has been notified already."""

    def on_trial_remove(self, controller: Any, trial: Trial) -> None:
        """Does nothing: the supervisor has been notified already."""

    def debug_string(self) -> str:
        return "nbt"

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the study's storage has the whole state."""


def _retire_actor(controller: Any, trial: Trial) -> None:
    """Makes Tune end the actor with its trial; otherwise it would be reused for the next trial, memory included."""
    inner = getattr(controller, "_tune_controller", controller)
    inner._started_actors.discard(inner._trial_to_actor.get(trial))


def _failure_reason(trial: Trial) -> tuple[str, bool]:
    """Returns why an attempt ended without an outcome, and whether its whole node was lost."""
    error = _load_error(trial)
    text = " ".join(str(error).split())
    if not isinstance(error, RayActorError):
        return f"worker failed ({text[-300:]})", False
    if error.actor_init_failed:
        return f"a worker could not be set up ({text[-300:]})", False
    node_lost = error.preempted or "node has died" in text or "node was terminated" in text
    return ("its node was lost" if node_lost else "worker process died"), node_lost


def _load_error(trial: Trial) -> BaseException | None:
    """Returns the exception that ended an attempt; Tune's own accessor reads a copy that does not exist yet."""
    try:
        error: BaseException = pickle.loads(Path(str(trial.pickled_error_file)).read_bytes())
    except Exception:  # the error is only used in a message
        return None
    return error


class RayWorker(tune.Trainable):
    """An actor that runs one trial after another and keeps its runner: model, w0 and frozen-feature caches."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> Any:
        """Returns the resources of the assignment in `config`."""
        return tune.PlacementGroupFactory([dict(config["assignment"].resources)], strategy="SPREAD")

    def setup(
        self, config: dict[str, Any], task_ref: Sequence[Any] = (), worker_options: Mapping[str, Any] | None = None
    ) -> None:
        """Starts the first trial; its thread creates the runner."""
        assert worker_options is not None
        resources = config["assignment"].resources
        threads = max(1, int(resources.get("CPU", 1)))
        requested_threads = os.environ.get("OMP_NUM_THREADS", "")
        if requested_threads.isdecimal() and int(requested_threads) > 0:
            threads = min(threads, int(requested_threads))
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._reason: str | None = None
        # Ray kills workers, for instance when the driver has ended; a locked directory is removed even then.
        self._directory = LockedDirectory("nbt-worker-")
        self._trial_thread = TrialThread(
            functools.partial(_open_runner, task_ref, worker_options, resources),
            _current_location,
            self._directory.path,
            worker_options["log_level"],
            _make_rate_limiter(worker_options, config["assignment"].slot),
        )
        self._trial_thread.start(config["assignment"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Starts another trial with the same runner."""
        self._reason = None
        self._trial_thread.start(new_config["assignment"])
        return True

    def request_stop(self, reason: str) -> None:
        """Makes the next step stop the trial."""
        self._reason = reason

    def step(self) -> dict[str, Any]:
        """Returns the next message of the trial: an epoch, or its outcome."""
        reason, self._reason = self._reason, None
        return {"message": self._trial_thread.next_message(reason)}

    def cleanup(self) -> None:
        """Closes the runner and removes the temporary files."""
        self._trial_thread.close()
        self._directory.close()


def _make_rate_limiter(values: Mapping[str, Any], slot: int) -> CheckpointRateLimiter:
    max_concurrent = values["max_concurrent"]
    return CheckpointRateLimiter(
        values["checkpoint_bytes_per_second"] / max_concurrent, phase=(slot % max_concurrent) / max_concurrent
    )


def _open_runner(task_ref: Sequence[Any], values: Mapping[str, Any], resources: Mapping[str, float]) -> Runner:
    gpus = resources.get("GPU", 0.0)
    # Workers that share a GPU, or the CPUs of this node, share the memory for frozen-feature caches.
    workers_per_device = int(1 / gpus) if 0 < gpus < 1 else 1 if gpus else _workers_per_node(resources.get("CPU", 1.0))
    chosen = {name: values[name] for name in ("device", "cache_bytes", "runner")}
    if not gpus and chosen["device"] is None:
        chosen["device"] = "cpu"  # Ray hides no GPU from a worker that requested none
    setup = WorkerSetup(
        from_shared_arrays(ray.get(task_ref[0])),
        workers=max(1, min(workers_per_device, values["max_concurrent"])),
        **chosen,
    )
    runner = setup.open_runner()
    if gpus and runner.device == "cpu":
        numbers, host = ", ".join(_assigned_gpus()), platform.node()
        _log.warning("%s has GPU %s, but PyTorch finds no GPU there: its trials train on the CPU", host, numbers)
    return runner


def _workers_per_node(cpus: float) -> int:
    """Returns the number of workers with `cpus` CPUs each that fit on this node."""
    node = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    total = next((entry["Resources"].get("CPU", 1.0) for entry in nodes if entry["NodeID"] == node), 1.0)
    return int(total / cpus) if cpus else 1


def _current_location(device: str) -> WorkerLocation:
    return WorkerLocation(ray.get_runtime_context().get_node_id(), platform.node(), device, _assigned_gpus())


def _assigned_gpus() -> tuple[str, ...]:
    """Returns the indices of the GPUs that Ray has assigned to this worker."""
    return tuple(str(gpu) for gpu in ray.get_runtime_context().get_accelerator_ids().get("GPU", []))
