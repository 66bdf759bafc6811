"""Output of a command: results on stdout, as text or as one JSON document; logs and progress on stderr."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from nbt.errors import printable
from nbt.uris import redact_uri

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment


class Output:
    """Output of one command, configured by `-v`, `-q` and `--json` before the command runs.

    Attributes:
        json: Whether stdout receives one JSON document and nothing else.
        verbosity: -1 with `-q`, 0 by default, 1 with `-v`, 2 with `-vv`.
    """

    def __init__(self) -> None:
        self.json = False
        self.verbosity = 0

    @property
    def verbose(self) -> bool:
        """Whether tracebacks are shown."""
        return self.verbosity > 0

    @property
    def quiet(self) -> bool:
        """Whether progress and warnings are hidden."""
        return self.verbosity < 0

    @property
    def progress_mode(self) -> str:
        """How the command shows its progress, see `nbt.display.modes`."""
        from nbt.display.modes import OFF, terminal_mode

        return OFF if self.quiet else terminal_mode()

    def configure(self, *, as_json: bool = False, verbosity: int = 0) -> None:
        """Applies the options of a command, and directs the log records of the package to stderr.

        Args:
            as_json: See `json`.
            verbosity: See `verbosity`; it also sets the level of the log.
        """
        self.json, self.verbosity = as_json, verbosity
        levels = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}
        log = logging.getLogger("nbt")
        log.setLevel(levels.get(verbosity, logging.DEBUG))
        log.handlers = [_StderrHandler()]
        log.propagate = False

    def print_json(self, value: Any) -> None:
        """Writes a value as one strict JSON document; see `to_strict`."""
        click.echo(json.dumps(to_strict(value), indent=2, allow_nan=False))

    def print(self, *parts: RenderableType) -> None:
        """Writes text or tables."""
        print_parts(stdout_console(), parts)

    def note(self, text: str) -> None:
        """Writes a remark to stderr, unless the command is quiet."""
        if not self.quiet:
            print_to_stderr(text)

    def print_rows(
        self, rows: Sequence[Mapping[str, Any]], *, right_aligned: Iterable[str] = (), empty_text: str
    ) -> None:
        """Writes a table with the keys of the first row as its header.

        Args:
            rows: Rows with the same keys; None is shown as an empty cell.
            right_aligned: Names of the columns to align on the right.
            empty_text: Text to write if there are no rows.
        """
        from rich.table import Table
        from rich.text import Text

        if not rows:
            self.print(Text(empty_text))
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for index, name in enumerate(rows[0]):
            table.add_column(name, justify="right" if name in right_aligned else "left", no_wrap=index == 0)
        for row in rows:
            table.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
        self.print(table)


class _StderrHandler(logging.Handler):
    """Writes "warning: text" to the current `sys.stderr`, which a progress display may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            severity = getattr(record, "severity", record.levelname.lower())
            print_to_stderr(f"{severity}: {redact_uri(record.getMessage())}")
        except Exception:
            self.handleError(record)


def print_to_stderr(*texts: str) -> None:
    """Writes a line to the current `sys.stderr`, without characters that control a terminal."""
    print(printable(" ".join(texts)), file=sys.stderr, flush=True)


class _Printable:
    """A text or table without characters that control a terminal, but for its own styles."""

    def __init__(self, part: RenderableType) -> None:
        self._part = part

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        from rich.segment import Segment

        for text, style, control in console.render(self._part, options):
            yield Segment(text if control else printable(text), style, control)


def stdout_console() -> Console:
    """Returns a console on stdout; its lines are not wrapped if stdout is not a terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 10_000, highlight=False, markup=False, emoji=False)


def print_parts(console: Console, parts: Iterable[RenderableType]) -> None:
    """Prints texts and tables; a text that must not be wrapped says itself whether it is cut off."""
    from rich.text import Text

    for part in parts:
        # rich joins the texts of a line to a new one, which has only the attributes given here.
        attributes: Any = {"no_wrap": part.no_wrap, "overflow": part.overflow} if isinstance(part, Text) else {}
        console.print(_Printable(part), crop=False, **attributes)


def to_strict(value: Any) -> Any:
    """Converts a value to types of strict JSON; numbers that are not finite become None.

    Raises:
        TypeError: The value, or a part of it, has no JSON form.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_strict(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_strict(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return to_strict(value.tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form")


def percent(share: float | None) -> str:
    """Formats a share 0 ... 1, as in "84.1 %"; None becomes "-"."""
    if share is None:
        return "-"
    return f"{100 * share:.1f} %"


def relative_path(path: Path) -> Path:
    """Returns the path relative to the working directory if it is below it, else the path itself."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
