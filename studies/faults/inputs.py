"""Bad inputs: each is given to a command of nbt, which must refuse it without harm."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from faults.checks import check_output
from faults.generators import GENERATORS, Case, Sandbox
from faults.generators.case import CANARY, SECRET
from faults.process import start

INPUTS = "bad inputs"
_SECONDS, _OUTSIDE = 60.0, "outside"
# Devices, and what any process may write: bytecode beside modules, and states of the kernel.
_ALLOWED = ("/dev/", "/proc/")


class BadInputs:
    """Bad inputs below a folder, with a finished search of the campaign as the model and store that some need.

    Args:
        folder: Folder of the inputs; those without problems are removed.
        seed: Seed of all random choices.
        model: A good model folder.
        store: A good database of studies.
    """

    def __init__(self, folder: Path, seed: int, model: Path, store: Path) -> None:
        self._folder, self._seed, self._model, self._store = folder, seed, model, store

    def run(self, number: int) -> Iterator[dict[str, Any]]:
        """Yields the rows of so many inputs, of all kinds in turn."""
        for index in range(number):
            yield self.attempt(index)

    def attempt(self, number: int) -> dict[str, Any]:
        """Tries one input and returns its row."""
        names = list(GENERATORS)
        kind = names[number % len(names)]
        outer = self._folder / f"input-{number:04d}"
        folder = outer / "inner" / "work"
        shutil.rmtree(outer, ignore_errors=True)
        folder.mkdir(parents=True)
        sandbox = Sandbox(folder, self._model, self._store, random.Random(f"{self._seed}-{number}"))
        case = GENERATORS[kind](sandbox)
        made = set(outer.rglob("*"))
        started = time.monotonic()
        environment = {
            "NBT_CACHE": str(outer / "cache"),
            "TMPDIR": str(outer / "temporary"),
            "HOME": str(outer / "home"),
        }
        for name in ("cache", "temporary", "home"):
            (outer / name).mkdir()
        setup = partial(_watch, str(outer))
        process = start(folder, outer / "logs", case.arguments, environment=environment, setup=setup)
        process.wait(_SECONDS)
        verbose = "-v" in case.arguments
        problems = check_output(process, case.codes, verbose=verbose) + _check(
            case, outer, made, process.output + process.errors
        )
        if not problems:
            shutil.rmtree(outer, ignore_errors=True)
        return {
            "seed": self._seed,
            "try": number,
            "kind": INPUTS,
            "input": kind,
            "name": case.name,
            "command": case.arguments[0],
            "codes": [process.code],
            "problems": problems,
            "seconds": round(time.monotonic() - started, 1),
        }


def _check(case: Case, outer: Path, made: set[Path], printed: str) -> list[str]:
    """Returns the problems of what a command has written and printed."""
    problems = []
    if "\x1b" in printed:
        problems.append("escape characters were printed")
    if (outer / "inner" / "work" / CANARY).exists():
        problems.append("code in the input was run")
    log = outer / "logs" / _OUTSIDE
    if log.exists():
        problems.append(f"outside of its folders: {log.read_text().splitlines()[0][:200]}")
    problems += [f"written outside: {path.name}" for path in outer.rglob("escaped*") if path not in made]
    if SECRET in printed:
        problems.append("a password was printed")
    new = [path for path in outer.rglob("*") if path.is_file() and path not in made]
    leaking = [path for path in new if SECRET.encode() in path.read_bytes()]
    problems += [f"a password is in {path.relative_to(outer)}" for path in leaking if "logs" not in path.parts]
    return problems


def _watch(root: str) -> None:
    """Notes in a file when this process writes outside of a folder or starts a program."""
    checks: dict[str, Callable[[tuple[Any, ...]], str]] = {
        "open": lambda arguments: str(arguments[0]) if _writes(arguments) else "",
        "os.rename": lambda arguments: str(arguments[1]),
        "os.mkdir": lambda arguments: str(arguments[0]),
        "os.remove": lambda arguments: str(arguments[0]),
        "os.symlink": lambda arguments: str(arguments[1]),
        "os.system": lambda arguments: f"program {arguments[0]!r}",
        "os.exec": lambda arguments: f"program {arguments[0]!r}",
    }
    log = f"{root}/logs/{_OUTSIDE}"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        path = checks[event](arguments) if event in checks else ""
        # Links are kept: a path is that of the folder in which it was given.
        if path and not os.path.abspath(path).startswith((root, *_ALLOWED)):  # noqa: PTH100
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(descriptor, f"{event} {path}\n".encode(errors="backslashreplace"))
            os.close(descriptor)

    sys.addaudithook(hook)


def _writes(arguments: tuple[Any, ...]) -> bool:
    path, mode, flags = arguments
    if not isinstance(path, str):
        return False
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
