"""Commands of nbt as a user runs them: in a process, a folder and with a cache of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent


def run_nbt(command: str, folder: Path, options: Mapping[str, object], *, flags: Sequence[str] = ()) -> dict[str, Any]:
    """Runs a command in a folder, which also gets its cache, and returns its JSON document.

    Args:
        command: Name of the command, such as "search".
        folder: Working folder.
        options: Options without their dashes -> values.
        flags: Options without values, without their dashes.
    """
    words = [*(f"--{flag}" for flag in ("json", *flags)), *(f"--{key}={value}" for key, value in options.items())]
    done = subprocess.run(
        [sys.executable, "-m", "nbt", command, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "NBT_CACHE": str(folder / "cache")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document
