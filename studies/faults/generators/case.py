"""A bad input, and the folder in which it is made."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

SECRET = "s3cr3t-pa55w0rd"
"""Password in URLs; it must appear nowhere."""

CANARY = "code-was-run"
"""Name of the file in the working directory that code in an input would create."""


@dataclass(frozen=True)
class Sandbox:
    """Where an input is made.

    Attributes:
        folder: Working directory of the command.
        model: A good model folder, and a study database beside it, to be copied and damaged.
        store: A good database of studies.
        rng: Source of all random choices.
    """

    folder: Path
    model: Path
    store: Path
    rng: random.Random


@dataclass(frozen=True)
class Case:
    """A bad input.

    Attributes:
        name: What is bad, in a few words.
        arguments: The command that reads it.
        codes: Exit codes that are right: 2 for a wrong input; 0 where the rest of the input is used; 1 where what the
            input names is not available.
    """

    name: str
    arguments: tuple[str, ...]
    codes: tuple[int, ...] = field(default=(2,))
