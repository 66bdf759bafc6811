"""The contract of a kind of fault."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from faults.process import Process
from faults.search import PHASES, Search


@dataclass(frozen=True)
class Attempt:
    """One fault in one search.

    Attributes:
        search: The search.
        phase: Phase in which the fault is injected, one of `PHASES`.
        delay: Seconds from the start of the phase to the fault.
        rng: Source of all further random choices.
        size: Bytes that the undisturbed search has written.
        writes: Number of files that it has opened for writing.
    """

    search: Search
    phase: str
    delay: float
    rng: random.Random
    size: int
    writes: int


class Fault(ABC):
    """A kind of fault; an object is one fault.

    The campaign calls `adapt` and `arrange`, starts the search with `setup`, calls `inject` at the moment of the
    attempt, waits for the end of the process, calls `problems` and `restore`, runs the same command again, and calls
    `finished` and `close`.

    Attributes:
        kind: Its name.
        phases: The phases in which it is injected.
        workers: The numbers of workers with which it is tried.
        engine: The engine of the search.
        codes: Exit codes that the faulty process may have; 0 where it came too late or has no effect.
        goal: Number of tries that a campaign aims at, relative to the other kinds.
    """

    kind: ClassVar[str]
    phases: ClassVar[tuple[str, ...]] = PHASES
    workers: ClassVar[tuple[int, ...]] = (1,)
    engine: ClassVar[str] = "local"
    codes: ClassVar[tuple[int, ...]] = (0, 1)
    goal: ClassVar[int] = 1

    @classmethod
    def missing(cls) -> str | None:
        """Returns why the fault cannot be injected on this machine; None if it can."""
        return None

    def adapt(self, search: Search) -> Search:
        """Returns the search with what the fault needs, such as a server; what it starts is ended by `close`."""
        return search

    def arrange(self, attempt: Attempt) -> None:  # noqa: B027 - most kinds need no preparation
        """Prepares the folder of the search before it starts."""

    def setup(self, attempt: Attempt) -> Callable[[], None] | None:
        """Returns what is called in the process before the search starts."""
        return None

    @abstractmethod
    def inject(self, attempt: Attempt, process: Process) -> bool:
        """Injects the fault; returns whether it met the search."""

    def restore(self, attempt: Attempt) -> list[str]:
        """Removes the cause of the fault before the search is resumed; returns problems found while doing so."""
        return []

    def finished(self, attempt: Attempt) -> list[str]:
        """Returns further problems after the resumed search has ended."""
        return []

    def close(self) -> None:  # noqa: B027 - most kinds start nothing
        """Ends what `adapt` has started; called in every case."""

    def problems(self, attempt: Attempt, process: Process) -> list[str]:
        """Returns further problems of the process with the fault."""
        return []
