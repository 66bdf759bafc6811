"""The worker: an actor of Ray Tune that runs trials, and everything that runs inside its process."""

from __future__ import annotations

import functools
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import tune

from nbt.tuning.engines.cpu_threads import limit_threads, thread_environment
from nbt.tuning.engines.locked_directory import LockedDirectory
from nbt.tuning.engines.protocol import WorkerLocation
from nbt.tuning.engines.ray.worker.checkpoint_rate_limiter import CheckpointRateLimiter
from nbt.tuning.engines.ray.worker.task_serialization import from_shared_arrays
from nbt.tuning.engines.ray.worker.trial_thread import TrialThread
from nbt.tuning.engines.worker import Runner, WorkerSetup

_log = logging.getLogger("nbt")


class RayWorker(tune.Trainable):
    """An actor that runs one trial after another and keeps its runner: model, w0 and frozen-feature caches."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> Any:
        """Returns the resources of the assignment in `config`."""
        return tune.PlacementGroupFactory([dict(config["assignment"].resources)], strategy="SPREAD")

    def setup(
        self, config: dict[str, Any], task_ref: Sequence[Any] = (), worker_options: Mapping[str, Any] | None = None
    ) -> None:
        """Starts the first trial; its thread creates the runner.

        Args:
            config: "assignment", the first `TrialAssignment`.
            task_ref: One reference to the task in Ray's object store; in a sequence, because Tune would replace a bare
                reference by the task itself.
            worker_options: As in `nbt.tuning.engines.ray.tune.run_tune`.
        """
        assert worker_options is not None
        resources = config["assignment"].resources
        os.environ.update(thread_environment(limit_threads(int(resources.get("CPU", 1)))))
        self._stop_reason: str | None = None
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
        self._stop_reason = None
        self._trial_thread.start(new_config["assignment"])
        return True

    def request_stop(self, reason: str) -> None:
        """Makes the next step stop the trial."""
        self._stop_reason = reason

    def step(self) -> dict[str, Any]:
        """Returns the next message of the trial: an epoch, or its outcome."""
        reason, self._stop_reason = self._stop_reason, None
        return {"message": self._trial_thread.next_message(reason)}

    def cleanup(self) -> None:
        """Closes the runner and removes the temporary files."""
        self._trial_thread.close()
        self._directory.close()


def _make_rate_limiter(worker_options: Mapping[str, Any], slot: int) -> CheckpointRateLimiter:
    """Returns the limiter of one worker, which has an equal share of the rate of all workers together."""
    max_concurrent = worker_options["max_concurrent"]
    return CheckpointRateLimiter(
        worker_options["checkpoint_bytes_per_second"] / max_concurrent, phase=(slot % max_concurrent) / max_concurrent
    )


def _open_runner(task_ref: Sequence[Any], worker_options: Mapping[str, Any], resources: Mapping[str, float]) -> Runner:
    gpus = resources.get("GPU", 0.0)
    # Workers that share a GPU, or the CPUs of this node, share the memory for frozen-feature caches.
    workers_per_device = int(1 / gpus) if 0 < gpus < 1 else 1 if gpus else _workers_per_node(resources.get("CPU", 1.0))
    runner_options = {name: worker_options[name] for name in ("device", "cache_bytes", "runner")}
    if not gpus and runner_options["device"] is None:
        runner_options["device"] = "cpu"  # Ray hides no GPU from a worker that requested none
    setup = WorkerSetup(
        from_shared_arrays(ray.get(task_ref[0])),
        workers=max(1, min(workers_per_device, worker_options["max_concurrent"])),
        **runner_options,
    )
    runner = setup.open_runner()
    if gpus and runner.device == "cpu":
        indices, host = ", ".join(_assigned_gpus()), platform.node()
        _log.warning("%s has GPU %s, but PyTorch finds no GPU there: its trials train on the CPU", host, indices)
    return runner


def _workers_per_node(cpus: float) -> int:
    """Returns the number of workers with `cpus` CPUs each that fit on this node."""
    node_id = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    total = next((node["Resources"].get("CPU", 1.0) for node in nodes if node["NodeID"] == node_id), 1.0)
    return int(total / cpus) if cpus else 1


def _current_location(device: str) -> WorkerLocation:
    return WorkerLocation(ray.get_runtime_context().get_node_id(), platform.node(), device, _assigned_gpus())


def _assigned_gpus() -> tuple[str, ...]:
    """Returns the indices of the GPUs that Ray has assigned to this worker."""
    return tuple(str(gpu) for gpu in ray.get_runtime_context().get_accelerator_ids().get("GPU", []))
