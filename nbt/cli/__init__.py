"""The command line: one file a command. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs `nbt` on the arguments of this process and exits with its code."""
    from nbt.cli.app import run

    for stream in (sys.stdout, sys.stderr):
        # File names of any bytes, and terminals of any encoding, can be printed.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
