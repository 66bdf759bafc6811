"""Classification of the exceptions with which workers of Ray end; no Ray is started."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError

from nbt.tuning.engines.ray.worker_failures import WorkerFailure, classify_error, worker_failure

NODE_LOST = WorkerFailure("its node was lost", node_lost=True)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (RayActorError(error_msg="The actor died because its node has died."), NODE_LOST),
        (RayActorError(error_msg="... the actor's\n node was terminated expectedly"), NODE_LOST),
        (RayActorError(preempted=True), NODE_LOST),
        (RayActorError(error_msg="Worker unexpectedly exits"), WorkerFailure("worker process died")),
        (
            RayActorError(error_msg="no\nmodule", actor_init_failed=True),
            WorkerFailure("a worker could not be set up (no module)"),
        ),
        (OutOfMemoryError("killed by the monitor"), WorkerFailure("worker failed (killed by the monitor)")),
        (None, WorkerFailure("worker failed (None)")),
    ],
)
def test_failures(error: BaseException | None, failure: WorkerFailure) -> None:
    assert classify_error(error) == failure


def test_long_messages_are_shortened_to_their_end() -> None:
    reason = classify_error(ValueError(f"{'x' * 1000} end")).reason
    assert reason.endswith("x end)") and len(reason) < 350


def test_the_error_is_read_from_the_file_of_the_trial(tmp_path: Path) -> None:
    trial: Any = SimpleNamespace(pickled_error_file=tmp_path / "error.pkl")
    assert worker_failure(trial) == WorkerFailure("worker failed (None)"), "no file"
    trial.pickled_error_file.write_bytes(pickle.dumps(RayActorError(preempted=True)))
    assert worker_failure(trial) == NODE_LOST
