"""Command-line interface: one file per command. The dependencies of a command are imported only when it runs."""

from __future__ import annotations

import signal
import sys

from nbt.machine.process_end import end_at_once
from nbt.tuning.engines.interrupts import InterruptGuard

__all__ = ["main"]


def main() -> None:
    """Runs `nbt` with the arguments of this process and exits with the exit code of the command."""
    code: int | None = None
    try:
        # Importing runs callbacks, from which Python drops the exception of a Ctrl-C; the guard raises it again.
        with InterruptGuard([signal.SIGINT]):
            from nbt.cli.app import run

            for stream in (sys.stdout, sys.stderr):
                # File names may hold any bytes, and a terminal may have any encoding.
                if hasattr(stream, "reconfigure"):
                    stream.reconfigure(errors="backslashreplace")
            code = run(sys.argv[1:])
    except KeyboardInterrupt:
        if code is None:
            print("interrupted", file=sys.stderr)
        code = 128 + signal.SIGINT
    # Another Ctrl-C ends what libraries do at the exit, without their tracebacks.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if code == 128 + signal.SIGINT:
        end_at_once(code)
    # With `python -m nbt`, CPython ends the process by SIGINT instead of with this code if an interrupt came while a
    # text was executed, as dataclasses do, even if it was handled. Executing another text resets that.
    exec("")
    sys.exit(code)
