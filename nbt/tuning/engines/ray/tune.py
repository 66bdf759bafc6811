"""The brain behind Ray Tune: a searcher and a scheduler that only pass on, and the trainable that runs the specs.

Ray Tune places actors, keeps them warm between trials and notices their death; it decides nothing. A trial of Tune is
one attempt at a spec: what to try again is decided by `nbt.tuning.engines.distributed.supervisor`, because Tune gives up a trial whose
actor died while it was being handed over, whatever `max_failures` says. Nothing of Tune's own state is ever read
back.
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
    "RAY_AIR_NEW_OUTPUT": "0",  # it prints to stdout, even when it is told to be silent
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
    """Runs Ray Tune until the request_queue is closed.

    Args:
        request_queue: Who decides.
        task_ref: Reference to the packed task in Ray's object store.
        setup: The rest of `WorkerSetup`, and of how workers are to behave.
        max_concurrent: The most trials at a time.
        folder: For what Tune must write; nobody reads it.
    """
    os.environ.update(_ENVIRONMENT)
    # It calls every attempt that was not the last an error.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        # Tune wants to stage its own state in the session folder of a node, and over ray:// there is none here.
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
        _remote=False,  # over a ray:// address Tune would move the searcher, and the supervisor with it, to the head
    )


class _SilentReporter(TrialProgressCallback):
    """Prints nothing; Tune's own, which it adds where there is none, prints a line a trial even when told not to."""

    def _print(self, msg: str) -> None:
        """Nothing: the study's progress is shown by whoever runs it."""


class _Searcher(Searcher):
    """Hands out what the supervisor say."""

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
        """The scheduler has told."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the storage has it all."""


class _Scheduler(TrialScheduler):
    """Passes on what workers say, and the answers."""

    def __init__(self, request_queue: RequestQueue, max_concurrent: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._request_queue, self._at_a_time = request_queue, max_concurrent
        self._cached_resources: Any = None

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        message = result["message"]
        answer = self._request_queue.handle_message(trial.trial_id, message)
        message.drop_files()
        trial.config["assignment"].checkpoint = None
        if answer.finished:
            if answer.retire_worker:
                _retire_actor(controller, trial)
            return str(TrialScheduler.STOP)
        if answer.reason is not None:
            # STOP would cut the run off without its outcome: what it knows of itself, its file removed. The actor
            # gets this before the call that asks it for more.
            actor: Any = trial.temporary_state.ray_actor
            actor.request_stop.remote(answer.reason)
        return str(TrialScheduler.CONTINUE)

    def on_trial_error(self, controller: Any, trial: Trial) -> None:
        self._request_queue.handle_worker_lost(trial.trial_id, *_failure_reason(trial))

    def choose_trial_to_run(self, controller: Any) -> None:
        """Tune asks in every step: the moment to stop what was given up. It starts pending trials by itself."""
        live = {trial.trial_id: trial for trial in controller.get_live_trials()}
        for attempt in self._request_queue.pop_abandoned(list(live)):
            controller.stop_trial(live[attempt])

    def on_trial_add(self, controller: Any, trial: Trial) -> None:
        """Keeps actors while there is nothing for them; Tune would keep one alone, and the finals would start cold."""
        resources = trial.placement_group_factory
        if resources == self._cached_resources:
            return
        inner = getattr(controller, "_tune_controller", controller)
        # At the end a worker that is in mid-epoch is killed after that; Tune waits as long for any worker to end.
        inner._actor_force_cleanup_timeout = _GRACE_SECONDS
        cache = getattr(inner, "_actor_cache", None)
        if cache is not None:
            if self._cached_resources is not None:
                cache.decrease_max(self._cached_resources, by=self._at_a_time)
            cache.increase_max(resources, by=self._at_a_time)
            self._cached_resources = resources

    def on_trial_complete(self, controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """The supervisor know."""

    def on_trial_remove(self, controller: Any, trial: Trial) -> None:
        """The supervisor know."""

    def debug_string(self) -> str:
        return "nbt"

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the storage has it all."""


def _retire_actor(controller: Any, trial: Trial) -> None:
    """Has Tune end the actor of a trial with it; it would keep it for the next one, with all that it holds."""
    inner = getattr(controller, "_tune_controller", controller)
    inner._started_actors.discard(inner._trial_to_actor.get(trial))


def _failure_reason(trial: Trial) -> tuple[str, bool]:
    """Returns why an attempt ended without a word, and whether its whole node is gone."""
    error = _load_error(trial)
    text = " ".join(str(error).split())
    if not isinstance(error, RayActorError):
        return f"worker failed ({text[-300:]})", False
    if error.actor_init_failed:
        return f"a worker could not be set up ({text[-300:]})", False
    node_lost = error.preempted or "node has died" in text or "node was terminated" in text
    return ("its node was lost" if node_lost else "worker process died"), node_lost


def _load_error(trial: Trial) -> BaseException | None:
    """Returns what ended an attempt. Tune's own look-up reads a copy that it has not made yet."""
    try:
        error: BaseException = pickle.loads(Path(str(trial.pickled_error_file)).read_bytes())
    except Exception:  # it is for a message only
        return None
    return error


class RayWorker(tune.Trainable):
    """An actor that runs one spec after another and keeps its tools: model skeleton, w0, prefix caches."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> Any:
        """Returns what the run in `config` needs."""
        return tune.PlacementGroupFactory([dict(config["assignment"].resources)], strategy="SPREAD")

    def setup(
        self, config: dict[str, Any], task_ref: Sequence[Any] = (), worker_options: Mapping[str, Any] | None = None
    ) -> None:
        """Begins the first run; the tools are made when it does."""
        assert worker_options is not None
        resources = config["assignment"].resources
        threads = max(1, int(resources.get("CPU", 1)))
        asked = os.environ.get("OMP_NUM_THREADS", "")
        if asked.isdecimal() and int(asked) > 0:
            threads = min(threads, int(asked))
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._reason: str | None = None
        self._directory = LockedDirectory(
            "nbt-worker-"
        )  # Ray kills its workers: where the driver is gone, and at other times
        self._trial_thread = TrialThread(
            functools.partial(_open_runner, task_ref, worker_options, resources),
            _current_location,
            self._directory.path,
            worker_options["log_level"],
            _make_rate_limiter(worker_options, config["assignment"].slot),
        )
        self._trial_thread.start(config["assignment"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins another run with the same tools."""
        self._reason = None
        self._trial_thread.start(new_config["assignment"])
        return True

    def request_stop(self, reason: str) -> None:
        """Makes the next step end the run."""
        self._reason = reason

    def step(self) -> dict[str, Any]:
        """Returns what comes next of the run: an epoch, or its end."""
        reason, self._reason = self._reason, None
        return {"message": self._trial_thread.next(reason)}

    def cleanup(self) -> None:
        """Frees the tools."""
        self._trial_thread.close()
        self._directory.close()


def _make_rate_limiter(values: Mapping[str, Any], slot: int) -> CheckpointRateLimiter:
    max_concurrent = values["max_concurrent"]
    return CheckpointRateLimiter(
        values["checkpoint_bytes_per_second"] / max_concurrent, phase=(slot % max_concurrent) / max_concurrent
    )


def _open_runner(task_ref: Sequence[Any], values: Mapping[str, Any], resources: Mapping[str, float]) -> Runner:
    gpus = resources.get("GPU", 0.0)
    # What shares a GPU, or the CPUs of this node, shares the memory for prefix caches.
    workers_per_device = int(1 / gpus) if 0 < gpus < 1 else 1 if gpus else _workers_per_node(resources.get("CPU", 1.0))
    chosen = {name: values[name] for name in ("device", "cache_bytes", "runner")}
    if not gpus and chosen["device"] is None:
        chosen["device"] = "cpu"  # Ray hides no GPU from a worker that asked for none
    setup = WorkerSetup(
        from_shared_arrays(ray.get(task_ref[0])),
        workers=max(1, min(workers_per_device, values["max_concurrent"])),
        **chosen,
    )
    runner = setup.open_runner()
    if gpus and runner.device == "cpu":
        numbers, host = ", ".join(_assigned_gpus()), platform.node()
        _log.warning("%s has GPU %s, but torch sees none there: its trials train on the CPU", host, numbers)
    return runner


def _workers_per_node(cpus: float) -> int:
    """Returns how many workers with so many CPUs this node has room for."""
    node = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    total = next((found["Resources"].get("CPU", 1.0) for found in nodes if found["NodeID"] == node), 1.0)
    return int(total / cpus) if cpus else 1


def _current_location(device: str) -> WorkerLocation:
    return WorkerLocation(ray.get_runtime_context().get_node_id(), platform.node(), device, _assigned_gpus())


def _assigned_gpus() -> tuple[str, ...]:
    """Returns the numbers of the GPUs that Ray gave this worker."""
    return tuple(str(gpu) for gpu in ray.get_runtime_context().get_accelerator_ids().get("GPU", []))
