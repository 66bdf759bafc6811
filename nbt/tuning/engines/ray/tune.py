"""The run of Ray Tune: a searcher and a scheduler that forward to the request queue.

Ray Tune places actors, keeps them between trials and detects their death; it makes no decisions. A trial of Tune is
one attempt at a trial of nbt: `nbt.tuning.engines.supervisor` decides about retries, because Tune gives up
a trial whose actor dies while the trial is assigned to it, even with `max_failures`. Tune's own state is never read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from nbt.tuning.engines.ray import tune_internals
from nbt.tuning.engines.ray.request_queue import EngineClosed, RequestQueue
from nbt.tuning.engines.ray.worker.trainable import RayWorker
from nbt.tuning.engines.ray.worker_failures import worker_failure

_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output is printed to stdout even with verbose=0
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # its state is never read back
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

_ACTOR_CLEANUP_SECONDS = 5


def run_tune(
    request_queue: RequestQueue,
    task_ref: Any,
    worker_options: Mapping[str, Any],
    *,
    max_concurrent: int,
    folder: Path,
) -> None:
    """Runs Ray Tune until the request queue is closed.

    Args:
        request_queue: Queue for the requests of Tune's thread.
        task_ref: Reference to the task in Ray's object store, as converted by `to_shared_arrays`.
        worker_options: Options of the workers: "device", "cache_bytes", "runner", "log_level", "max_concurrent" and
            "checkpoint_bytes_per_second".
        max_concurrent: Maximum number of concurrent trials.
        folder: Folder for the files that Tune writes, which are never read.
    """
    os.environ.update(_ENVIRONMENT)
    # This logger reports every attempt that is retried as an error.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    if tune_internals.is_ray_client():
        tune_internals.set_session_folder(folder)
    tune.run(
        tune.with_parameters(RayWorker, task_ref=[task_ref], worker_options=dict(worker_options)),
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
        callbacks=[tune_internals.SilentReporter()],
        verbose=0,
        **tune_internals.RUN_IN_THIS_PROCESS,
    )


class _Searcher(Searcher):
    """Returns the assignments of the supervisor to Tune."""

    def __init__(self, request_queue: RequestQueue) -> None:
        super().__init__()
        self._request_queue = request_queue

    def suggest(self, trial_id: str) -> Any:
        try:
            assignment = self._request_queue.request_assignment(trial_id)
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
        self._kept_resources: Any = None

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        message = result["message"]
        decision = self._request_queue.forward_message(trial.trial_id, message)
        # Tune keeps every trial's last message and configuration to the end of its run, and files are large.
        message.checkpoint = message.export = trial.config["assignment"].checkpoint = None
        if decision.finished:
            if decision.retire_worker:
                tune_internals.retire_actor(controller, trial)
            return str(TrialScheduler.STOP)
        if decision.stop_reason is not None:
            # STOP would end the attempt without an outcome and without removing its files. The actor receives this call
            # before the call of its next step.
            tune_internals.actor_of(trial).request_stop.remote(decision.stop_reason)
        return str(TrialScheduler.CONTINUE)

    def on_trial_error(self, controller: Any, trial: Trial) -> None:
        failure = worker_failure(trial)
        self._request_queue.report_worker_lost(trial.trial_id, failure.reason, node_lost=failure.node_lost)

    def choose_trial_to_run(self, controller: Any) -> None:
        """Stops abandoned attempts, as Tune calls this in every step; it starts pending trials by itself."""
        live = {trial.trial_id: trial for trial in controller.get_live_trials()}
        for attempt in self._request_queue.pop_abandoned(list(live)):
            controller.stop_trial(live[attempt])

    def on_trial_add(self, controller: Any, trial: Trial) -> None:
        """Lets Tune keep all idle actors; with its default of one, the finals would have to start new ones."""
        resources = trial.placement_group_factory
        if resources == self._kept_resources:
            return
        tune_internals.set_actor_cleanup_seconds(controller, _ACTOR_CLEANUP_SECONDS)
        if tune_internals.keep_idle_actors(
            controller, resources, self._max_concurrent, instead_of=self._kept_resources
        ):
            self._kept_resources = resources

    def on_trial_complete(self, controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Does nothing: the supervisor has been notified already."""

    def on_trial_remove(self, controller: Any, trial: Trial) -> None:
        """Does nothing: the supervisor has been notified already."""

    def debug_string(self) -> str:
        return "nbt"

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the study's storage has the whole state."""
