"""What runs in a process of a campaign: `nbt`, which marks the start of its phases.

Usage: python -m faults.child ARGUMENTS
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

MODULES = "NBT_FAULTS_MODULES"
"""Environment variable with the file to which a process writes the names of the modules that it has imported."""


def run_nbt(arguments: tuple[str, ...]) -> None:
    """Runs a command of `nbt`, which ends with SystemExit."""
    from faults.process import MARKS

    tempfile.tempdir = None  # a forked process has a folder of its own
    sys.argv = ["nbt", *arguments]
    if os.environ.get(MARKS):
        _mark_phases(os.environ[MARKS])
    from nbt.cli import main

    try:
        main()
    finally:
        if MODULES in os.environ:
            Path(os.environ[MODULES]).write_text("\n".join(sys.modules))


def _mark_phases(file: str) -> None:
    from nbt.tuning import job_clock

    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
    enter, create = job_clock.JobClock.enter, job_clock.JobClock.__init__

    def mark(phase: str) -> None:
        os.write(descriptor, f"{phase} {time.time()}\n".encode())

    def marked_enter(self: job_clock.JobClock, phase: str) -> None:
        mark(phase)
        enter(self, phase)

    @functools.wraps(create)
    def marked_create(self: job_clock.JobClock, *args: object, **options: object) -> None:
        mark("prepare")
        create(self, *args, **options)  # type: ignore[arg-type]

    job_clock.JobClock.enter = marked_enter  # type: ignore[method-assign]
    job_clock.JobClock.__init__ = marked_create  # type: ignore[method-assign]


def checkpoint_every_epoch() -> None:
    """Makes trials in this process write a checkpoint after each epoch, instead of every few seconds."""
    from nbt.training import run_trial
    from nbt.training.fine_tune import fine_tune

    vars(run_trial)["fine_tune"] = functools.partial(fine_tune, checkpoint_seconds=0.0)


def fail_writing(root: str, number: int, code: int) -> Callable[[], None]:
    """Returns a set-up after which the n-th opening of a file below a folder for writing, and all later ones, fail.

    Args:
        root: The folder.
        number: Number of the first opening that fails, from 1.
        code: Error number, such as `errno.EIO`.
    """

    def install() -> None:
        count = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event != "open" or not _writes(arguments) or not str(arguments[0]).startswith(root):
                return
            count += 1
            if count >= number:
                raise OSError(code, os.strerror(code), str(arguments[0]))

        sys.addaudithook(hook)

    return install


def count_writing(root: str) -> None:
    """Counts the openings of files below a folder for writing, and writes the number to logs/writes at the end."""
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        count += event == "open" and _writes(arguments) and str(arguments[0]).startswith(root)

    sys.addaudithook(hook)
    atexit.register(lambda: Path(root, "logs", "writes").write_text(str(count)))


def _writes(arguments: tuple[object, ...]) -> bool:
    """Returns whether the arguments of the audit event "open" are those of an opening for writing."""
    path, mode, flags = arguments
    if not isinstance(path, str | os.PathLike):
        return False
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


if __name__ == "__main__":
    run_nbt(tuple(sys.argv[1:]))
