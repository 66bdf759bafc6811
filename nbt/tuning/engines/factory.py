"""Creation of an engine by its name; invalid options are reported before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbt.errors import UsageError, nearest, require_positive
from nbt.search_config import ENGINES
from nbt.tuning.engines.locked_directory import remove_abandoned_directories
from nbt.tuning.engines.ray.options import RayOptions, check_ray_client_installed, check_ray_installed

if TYPE_CHECKING:
    from nbt.task.task import Task
    from nbt.tuning.engines.base import Engine
    from nbt.tuning.engines.ray.cluster import Cluster


class EngineFactory:
    """Context manager that creates an engine: entering connects to the cluster, leaving closes engine and connection.

    Args:
        name: "local" or "ray".
        workers: Number of concurrent trials, 1 or more.
        ray: The Ray cluster and the resources per trial.

    Raises:
        UsageError: An option is invalid, or Ray is missing or too old.
    """

    def __init__(self, name: str = "local", workers: int = 1, ray: RayOptions | None = None) -> None:
        check_engine_options(name, workers, ray)
        self._name, self._workers, self._ray = name, workers, ray or RayOptions()
        self._cluster: Cluster | None = None
        self._engine: Engine | None = None

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
                self._cluster.resources(self._ray, self._workers)
            except UsageError:
                self.__exit__()
                raise
        return self

    def __exit__(self, *unused: object) -> None:
        if self._engine is not None:
            self._engine.close()
        if self._cluster is not None:
            self._cluster.close()

    def make(self, task: Task) -> Engine:
        """Returns the engine for a task.

        Raises:
            UsageError: No node has the resources that a trial needs.
            NbtError: Ray cannot be started on this machine.
        """
        if self._name == "ray":
            from nbt.tuning.engines.ray.engine import RayEngine

            self._engine = RayEngine(task, workers=self._workers, options=self._ray, cluster=self._cluster)
        else:
            from nbt.tuning.engines.local import LocalEngine

            self._engine = LocalEngine(task, workers=self._workers)
        return self._engine


def check_engine_options(name: str, workers: int, ray: RayOptions | None) -> None:
    """Checks the options of an engine without importing Ray.

    Raises:
        UsageError: The engine is unknown; Ray is missing, too old or lacks its client; or Ray options are given for
            another engine.
    """
    if name not in ENGINES:
        raise UsageError(f"engine {name!r}: {nearest(name, ENGINES)}")
    require_positive(workers=workers)
    if name == "ray":
        check_ray_installed()
        check_ray_client_installed(None if ray is None else ray.address)
    elif ray is not None and (options := ray.given_options()):
        raise UsageError(f"{', '.join(options)}: only with --engine ray")
