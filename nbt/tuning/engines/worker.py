"""The worker process: sets up its runner once, then runs the trials that it receives over a pipe.

`nbt.tuning.engines.worker_process` starts it as `python -m nbt.tuning.engines.worker FD FOLDER MODULE...`. The driver
sends a `WorkerSetup` and `TrialAssignment`s, the worker `WorkerMessage`s, of which the first has its location. The
driver answers an epoch with the reason to stop, or None to continue.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import pickle
import pkgutil
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nbt.machine.process_end import end_at_once
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.engines.log_forwarding import forward_logs
from nbt.tuning.engines.protocol import WorkerLocation, WorkerMessage, local_worker_location

if TYPE_CHECKING:
    from nbt.task.task import Task
    from nbt.training.worker.context import WorkerContext

TRIAL_RUNNER = "nbt.tuning.engines.worker:TrialRunner"

# After its driver has ended, a worker has this long to close its caches before it exits without doing so.
_CLEANUP_SECONDS = 10.0


class Runner(Protocol):
    """Runs trials one at a time and keeps its resources between them."""

    @property
    def device(self) -> str:
        """The device that trials run on: "cpu", "cuda:1"."""
        ...

    def run(self, spec: TrialSpec, on_epoch: Callable[[EpochResult], str | None]) -> TrialOutcome:
        """Runs one trial; a failure becomes its outcome. See `nbt.training.run_trial.run_trial`."""
        ...

    def close(self) -> None:
        """Frees the resources."""
        ...


class TrialRunner:
    """The runner of real trials; those of one backbone share a `WorkerContext`.

    Args:
        task: The task to fine-tune on.
        slot: Number of the worker, 0 ... workers - 1.
        workers: Number of workers on this machine; those on one device share the memory for images and frozen-feature
            caches.
        device: "cpu", "cuda", "cuda:1"; when None, GPU `slot` modulo the number of GPUs, or the CPU without GPUs.
        cache_bytes: Memory limit of the frozen-feature cache; this worker's share of the free memory when None.
        shared_folder: Folder in which workers on the CPU share frozen features; None keeps them in this process.
    """

    def __init__(
        self,
        task: Task,
        *,
        slot: int = 0,
        workers: int = 1,
        device: str | None = None,
        cache_bytes: int | None = None,
        shared_folder: Path | None = None,
    ) -> None:
        import torch

        from nbt.training.worker.context import WorkerContext

        gpus = torch.cuda.device_count()
        workers_per_device = workers
        if device is None and gpus:
            device = f"cuda:{slot % gpus}"
            workers_per_device = math.ceil(workers / gpus)
        n_backbones = 1 + len(task.candidates)

        def make_context(name: str) -> WorkerContext:
            return WorkerContext(
                task.candidate(name),
                device=device,
                cache_bytes=None if cache_bytes is None else cache_bytes // n_backbones,
                workers_per_device=workers_per_device * n_backbones,
                shared_folder=shared_folder,
            )

        self._make_context = make_context
        self._contexts = {"": make_context("")}

    @property
    def _context(self) -> WorkerContext:
        """The context of the backbone of the task."""
        return self._contexts[""]

    @property
    def device(self) -> str:
        """The device that trials run on."""
        return str(self._context.device)

    def run(self, spec: TrialSpec, on_epoch: Callable[[EpochResult], str | None]) -> TrialOutcome:
        """Runs one trial; see `nbt.training.run_trial.run_trial`."""
        from nbt.training.run_trial import failed_outcome, run_trial

        name = spec.settings.backbone
        if name not in self._contexts:
            try:
                self._contexts[name] = self._make_context(name)
            except Exception as error:
                return failed_outcome(error, self._context)
        return run_trial(spec, self._contexts[name], on_epoch)

    def close(self) -> None:
        """Frees the caches and their files."""
        for context in self._contexts.values():
            context.close()


@dataclass(frozen=True, eq=False)
class WorkerSetup:
    """What a worker needs before its first trial.

    Attributes:
        task: The task to fine-tune on.
        slot: Number of the worker, as in `TrialRunner`.
        workers: Number of workers on this machine, as in `TrialRunner`.
        device: Device of the trials, as in `TrialRunner`.
        cache_bytes: Memory limit of the frozen-feature cache, as in `TrialRunner`.
        shared_folder: Folder of shared frozen features, as in `TrialRunner`, whose other runners need not know it.
        runner: "module:name" of the class of the runner.
        log_level: Minimum level of the log records that the worker sends to the driver.
    """

    task: Task
    slot: int = 0
    workers: int = 1
    device: str | None = None
    cache_bytes: int | None = None
    shared_folder: Path | None = None
    runner: str = TRIAL_RUNNER
    log_level: int = logging.WARNING

    def open_runner(self) -> Runner:
        """Imports the runner class that `runner` names as "module:name" and returns an instance."""
        shared = {} if self.shared_folder is None else {"shared_folder": self.shared_folder}
        runner: Runner = pkgutil.resolve_name(self.runner)(
            self.task, slot=self.slot, workers=self.workers, device=self.device, cache_bytes=self.cache_bytes, **shared
        )
        return runner


def send(connection: Connection[Any, Any], message: object) -> None:
    """Sends a message with plain pickle.

    `Connection.send` would share tensors through files that vanish with the sending process.
    """
    connection.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))


def serve(connection: Connection[Any, Any]) -> None:
    """Runs trials until the driver sends None or ends.

    Args:
        connection: Delivers one `WorkerSetup`, then `TrialAssignment`s.
    """
    lock = threading.Lock()  # any thread may log

    def send_message(message: WorkerMessage) -> None:
        with lock:
            send(connection, message)

    def send_log(level: int, text: str) -> None:
        with suppress(ConnectionError):  # the driver has ended
            send_message(WorkerMessage(logs=((level, text),)))

    def on_epoch(result: EpochResult) -> str | None:
        send_message(WorkerMessage(epoch=result))
        reason: str | None = connection.recv()
        return reason

    with suppress(EOFError, ConnectionError):  # the driver has ended
        setup: WorkerSetup = connection.recv()
        forward_logs(setup.log_level, send_log)
        try:
            runner = setup.open_runner()
        except Exception as error:
            send_message(setup_failure(error, local_worker_location("")))
            return
        with closing(runner):
            send_message(WorkerMessage(location=local_worker_location(runner.device)))
            while (assignment := connection.recv()) is not None:
                send_message(WorkerMessage(outcome=runner.run(assignment.spec, on_epoch)))


def setup_failure(error: Exception, location: WorkerLocation) -> WorkerMessage:
    """Returns the message of a worker that could not set up its runner."""
    text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    outcome = TrialOutcome(error=text, traceback=traceback.format_exc(), out_of_memory=_is_out_of_memory(error))
    return WorkerMessage(outcome=outcome, setup_failed=True, location=location)


def _is_out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:  # importing torch takes seconds, and the error cannot come from it
        return isinstance(error, MemoryError)
    from nbt.devices import out_of_memory

    return out_of_memory(error)


def _exit_with_driver() -> None:
    """Ends this process when the driver ends, even by SIGKILL: only the driver holds the other end of stdin."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    signal.pthread_kill(main_thread, signal.SIGTERM)
    threading.Event().wait(_CLEANUP_SECONDS)
    os._exit(1)


def _exit_on_sigterm(signum: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signum)


def main() -> None:
    """Runs a worker.

    Its arguments are the file descriptor of its pipe, its folder for temporary files, and the modules that it imports
    first.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C
    signal.signal(signal.SIGTERM, _exit_on_sigterm)
    threading.Thread(target=_exit_with_driver, daemon=True).start()
    code = 0
    try:
        for name in sys.argv[3:]:
            with suppress(ImportError):  # a trial that needs it says so
                importlib.import_module(name)
        serve(Connection(int(sys.argv[1])))
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        shutil.rmtree(sys.argv[2], ignore_errors=True)  # the driver does this, too, unless it was killed
    end_at_once(code)  # the driver waits for it


if __name__ == "__main__":
    # Classes defined in `__main__` would differ from those that the driver pickles.
    from nbt.tuning.engines.worker import main as run_worker

    run_worker()
