"""Why a worker of Ray ended without an outcome, from the exception that Ray has recorded for its trial.

- *Node lost*: the worker ended with its whole node, which was shut down, crashed or was preempted. Ray's exception has
  a flag for preempted nodes only; otherwise the loss of a node is recognised by the text of the message.
- *Process died*: the worker's process ended on a node that is alive, for instance by SIGKILL or a crash in native code.
- *Set-up failed*: the actor could not be created. A runner that cannot be created is a different case: the worker
  reports it as an outcome.
- *Any other exception*, which is quoted: for instance `ray.exceptions.OutOfMemoryError`, if Ray's memory monitor has
  killed the process because the memory of the node was nearly full.

A trial that runs out of the memory of its GPU is none of these: its worker stays alive and reports it as an outcome.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import RayActorError
from ray.tune.experiment import Trial

_NODE_LOST_TEXTS = ("node has died", "node was terminated")
_MAX_QUOTED_CHARACTERS = 300


@dataclass(frozen=True)
class WorkerFailure:
    """Why an attempt at a trial ended without an outcome.

    Attributes:
        reason: The reason as text for the log and the stored facts of the trial.
        node_lost: Whether the worker's whole node was lost; such a loss is no failure of the trial.
    """

    reason: str
    node_lost: bool = False


def worker_failure(trial: Trial) -> WorkerFailure:
    """Returns why Tune's trial, which is one attempt at a trial of nbt, has failed."""
    return classify_error(_load_error(trial))


def classify_error(error: BaseException | None) -> WorkerFailure:
    """Returns the failure that an exception of Ray stands for; None is an exception that cannot be read."""
    text = " ".join(str(error).split())
    quoted = text[-_MAX_QUOTED_CHARACTERS:]
    if not isinstance(error, RayActorError):
        return WorkerFailure(f"worker failed ({quoted})")
    if error.actor_init_failed:
        return WorkerFailure(f"a worker could not be set up ({quoted})")
    if error.preempted or any(node_lost in text for node_lost in _NODE_LOST_TEXTS):
        return WorkerFailure("its node was lost", node_lost=True)
    return WorkerFailure("worker process died")


def _load_error(trial: Trial) -> BaseException | None:
    """Returns the exception that ended an attempt; Tune's own accessor reads a copy that does not exist yet."""
    try:
        error: BaseException = pickle.loads(Path(str(trial.pickled_error_file)).read_bytes())
    except Exception:  # the error is only used in a message
        return None
    return error
