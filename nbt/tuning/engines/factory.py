"""Creation of an engine by its name; invalid options are reported before anything is written."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from nbt.cache import FEATURES, enforce_limit
from nbt.errors import UsageError, nearest
from nbt.option import AUTO
from nbt.paths import cache_folder
from nbt.progress import Progress
from nbt.search_config import ENGINES, check_workers
from nbt.tuning.engines.locked_directory import LockedDirectory, remove_abandoned_directories
from nbt.tuning.engines.ray.cluster_resources import NodeResources, fitting_trials
from nbt.tuning.engines.ray.options import RayOptions, check_ray_client_installed, check_ray_installed
from nbt.tuning.engines.worker import TRIAL_RUNNER
from nbt.tuning.engines.worker_count import choose_workers, most_workers, this_machine
from nbt.tuning.engines.worker_process import WorkerProcess

if TYPE_CHECKING:
    from nbt.task.task import Task
    from nbt.tuning.engines.base import Engine
    from nbt.tuning.engines.ray.cluster import Cluster

_log = logging.getLogger("nbt")

_MAX_SPARES = 4
_MODULES = ("nbt.training.run_trial",)


class EngineFactory:
    """Context manager that creates an engine: entering connects to the cluster, leaving closes engine and connection.

    Args:
        name: "local" or "ray".
        workers: Number of concurrent trials, 1 or more, or "auto"; see `nbt.tuning.engines.worker_count` for this
            machine, and `nbt.tuning.engines.ray.cluster_resources.fitting_trials` for a cluster.
        ray: The Ray cluster and the resources per trial.
        max_runs: Number of runs that can run at a time; None for any number.
        runner: "module:name" of the class of a worker's runner, for the local engine.
        extra_memory: Memory that a worker needs in addition to that of a trial, in bytes.

    Attributes:
        workers: Maximum number of concurrent trials of the engine that was made last; 0 before.

    Raises:
        UsageError: An option is invalid, or Ray is missing or too old.
    """

    def __init__(
        self,
        name: str = "local",
        workers: int | str = AUTO,
        ray: RayOptions | None = None,
        *,
        max_runs: int | None = None,
        runner: str = TRIAL_RUNNER,
        extra_memory: int = 0,
    ) -> None:
        check_engine_options(name, workers, ray)
        self._name, self._workers, self._ray = name, workers, ray or RayOptions()
        self._max_runs, self._runner, self._extra_memory = max_runs, runner, extra_memory
        self.workers = 0
        self._cluster: Cluster | None = None
        self._engine: Engine | None = None
        self._shared: LockedDirectory | None = None
        self._spares: list[WorkerProcess] = []

    def __enter__(self) -> EngineFactory:
        """Connects to the user's cluster, if an address was given.

        Raises:
            UsageError: The cluster does not respond, or no node has the resources that a trial needs.
        """
        remove_abandoned_directories()
        if self._name != "ray":
            return self
        try:
            import nbt.tuning.engines.ray.tune  # noqa: F401 - fail now, not after minutes of loading
        except ImportError as error:
            raise UsageError(f'--engine ray: Ray Tune cannot be imported ({error}); pip install "ray[tune]"') from error
        if self._ray.address is not None:
            from nbt.tuning.engines.ray.cluster import connect

            self._cluster = connect(self._ray)
            try:
                if self._workers == AUTO:
                    self._workers = self._cluster.fitting_trials(self._ray)
                self._cluster.resources(self._ray, int(self._workers))
            except UsageError:
                self.__exit__()
                raise
        return self

    def __exit__(self, *unused: object) -> None:
        self._end_spares()
        if self._engine is not None:
            self._engine.close()
        if self._cluster is not None:
            self._cluster.close()
        if self._shared is not None:
            self._shared.close()
            enforce_limit()  # the features that the workers kept

    def start_spares(self) -> None:
        """Starts the workers before the task is known, so that they import PyTorch while this process loads it.

        How many will run depends on the task only where memory is short, and on GPUs; then the processes end unused,
        and so no more than `_MAX_SPARES` are started.
        """
        workers = most_workers(self._workers, self._max_runs)
        if self._name == "local" and self._runner == TRIAL_RUNNER and 1 < workers <= _MAX_SPARES:
            for _ in range(workers):
                self._spares.append(WorkerProcess(workers, _MODULES))

    def _end_spares(self) -> None:
        while self._spares:
            self._spares.pop().join(0.0)  # kills it

    def make(self, task: Task, progress: Progress | None = None) -> Engine:
        """Returns the engine for a task.

        Args:
            task: The task to fine-tune on.
            progress: Receives a line on the number of workers and what limits it; the log receives it when None.

        Raises:
            UsageError: No node has the resources that a trial needs.
            NbtError: Ray cannot be started on this machine.
        """
        self.workers, line = self._choose_workers(task)
        if any(spare.workers != self.workers for spare in self._spares):
            self._end_spares()
        if progress is not None:
            progress(line, 0, 0)
        else:
            _log.info("%s", line)
        if self._name == "ray":
            from nbt.tuning.engines.ray.engine import RayEngine

            self._engine = RayEngine(task, workers=self.workers, options=self._ray, cluster=self._cluster)
        else:
            self._engine = self._make_local(task, self.workers)
        return self._engine

    def _choose_workers(self, task: Task) -> tuple[int, str]:
        """Returns the number of workers and the line that says why."""
        if self._cluster is not None:
            return int(self._workers), f"{self._workers} trials at a time on the cluster"
        if self._name == "ray" and self._workers == AUTO and (machine := this_machine()).gpus:
            workers = fitting_trials([NodeResources("", machine.cores, machine.gpus)], self._ray)
            return workers, f"{workers} trials at a time on this machine"
        return choose_workers(self._workers, task, self._max_runs, self._extra_memory)

    def _make_local(self, task: Task, workers: int) -> Engine:
        """Returns the local engine; several workers share the images and the frozen features through files.

        Features of images that are in the cache are kept there, for later searches on the same images.
        """
        from nbt.tuning.engines.local import LocalEngine

        if workers == 1:
            return LocalEngine(task, runner=self._runner)
        self._shared = LockedDirectory("nbt-shared-")
        in_cache = task.images.path is not None and task.images.path.parent == cache_folder("images")
        shared_task = _with_images_in_files(task, self._shared.path)
        return LocalEngine(
            shared_task,
            workers=workers,
            runner=self._runner,
            shared_folder=cache_folder(FEATURES) if in_cache else self._shared.path / FEATURES,
            measure_memory=self._workers == AUTO,
            spares=self._spares,
        )


def _with_images_in_files(task: Task, folder: Path) -> Task:
    """Returns the task with the images of all its backbones in files of a folder; those that are shared stay so."""
    return task.map_images(lambda store, name: store.in_file(folder / name))


def check_engine_options(name: str, workers: int | str, ray: RayOptions | None) -> None:
    """Checks the options of an engine without importing Ray.

    Raises:
        UsageError: The engine is unknown; Ray is missing, too old or lacks its client; or Ray options are given for
            another engine.
    """
    if name not in ENGINES:
        raise UsageError(f"engine {name!r}: {nearest(name, ENGINES)}")
    check_workers(workers)
    if name == "ray":
        check_ray_installed()
        check_ray_client_installed(None if ray is None else ray.address)
    elif ray is not None and (options := ray.given_options()):
        raise UsageError(f"{', '.join(options)}: only with --engine ray")
