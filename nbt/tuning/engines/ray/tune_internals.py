"""All uses of undocumented parts of Ray and Ray Tune, which Ray may change in any release.

`TESTED_VERSION` is the upper bound in `pyproject.toml`. To raise it, run the slow tests of `tests/tuning/engines/ray`;
`test_tune_internals.py` there names what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray._private import worker
from ray.train._internal import storage
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback

TESTED_VERSION = (2, 60)
# With a ray:// address Tune would otherwise run the searcher and the scheduler on the head.
RUN_IN_THIS_PROCESS: Mapping[str, Any] = {"_remote": False}


def is_ray_client() -> bool:
    """Returns whether this process is connected over ray://, so that it is on no node of the cluster."""
    return bool(ray.util.client.ray.is_connected())  # type: ignore[no-untyped-call]


def redirect_daemon_output(log: Callable[[str], None]) -> None:
    """Passes each line of output of Ray's daemons to `log`; Ray prints it to stdout in every configuration."""

    def log_lines(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        for line in data["lines"]:
            log(line)

    worker.print_to_stdstream = log_lines


class SilentReporter(TrialProgressCallback):
    """Prints nothing; without it Tune adds its own reporter, which prints one line per trial even with verbose=0."""

    def _print(self, msg: str) -> None:
        """Does nothing: the caller displays the progress of the study."""


def set_session_folder(folder: Path) -> None:
    """Sets the folder in which Tune stages its state, by default the session folder of the driver's node."""
    storage._get_ray_train_session_dir = lambda: str(folder)  # type: ignore[attr-defined]


def set_actor_cleanup_seconds(controller: Any, seconds: int) -> None:
    """Sets how long Tune waits at its end for its actors, before it kills those that are still in an epoch."""
    _tune_controller(controller)._actor_force_cleanup_timeout = seconds


def keep_idle_actors(controller: Any, resources: Any, count: int, *, instead_of: Any = None) -> bool:
    """Lets Tune keep idle actors for reuse; by default it keeps one.

    Args:
        controller: Tune's controller, as passed to a scheduler.
        resources: The `PlacementGroupFactory` of the actors.
        count: Number of idle actors to keep.
        instead_of: `PlacementGroupFactory` of actors that were kept before and are no longer needed; None without any.

    Returns:
        Whether Tune keeps actors at all, which it does with `reuse_actors=True`.
    """
    cache = getattr(_tune_controller(controller), "_actor_cache", None)
    if cache is None:
        return False
    if instead_of is not None:
        cache.decrease_max(instead_of, by=count)
    cache.increase_max(resources, by=count)
    return True


def retire_actor(controller: Any, trial: Trial) -> None:
    """Makes Tune end the actor with its trial; otherwise it would be reused for the next trial, memory included."""
    inner = _tune_controller(controller)
    inner._started_actors.discard(inner._trial_to_actor.get(trial))


def actor_of(trial: Trial) -> Any:
    """Returns the handle of the actor that runs a trial."""
    return trial.temporary_state.ray_actor


def _tune_controller(controller: Any) -> Any:
    """Returns the controller itself: a scheduler may receive a wrapper of it."""
    return getattr(controller, "_tune_controller", controller)
