"""Results of checks as text: failed ones with what to do, the others as a number."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from nbt.checks import CheckResult
from nbt.cli.display.tables import grid
from nbt.report.study.checks.registry import count_sentence

_STYLES = {"error": "bold red", "warning": "bold yellow", "info": "bold"}


def check_lines(results: Sequence[CheckResult]) -> list[RenderableType]:
    """Returns a heading, each failed check with its advice, and the numbers of the others; nothing without checks."""
    if not results:
        return []
    table = grid()
    for result in results:
        if result.is_failed:
            text = Text(f"{result.message}\n", overflow="fold")
            if result.examples:
                text.append(f"{'; '.join(result.examples)}{' ...' if result.count > len(result.examples) else ''}\n")
            text.append(result.advice, style="dim")
            table.add_row("", Text(f"{result.severity} {result.code}", style=_STYLES[result.severity]), text)
    others = count_sentence(result for result in results if not result.is_failed)
    return [Text("\nChecks", style="bold"), table, Text(f"  {others} See docs/checks.md.")]
