from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console

from nbt.checks import CheckResult
from nbt.cli.display.check_lines import check_lines

FAILED = CheckResult(
    code="NBT203", title="edge", severity="info", state="failed", message="head_lr = 1.", advice="Move the bound."
)


def text_of(results: list[CheckResult]) -> str:
    console = Console(file=StringIO(), width=100)
    for line in check_lines(results):
        console.print(line)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_failed_checks_have_code_message_and_advice_and_others_are_counted() -> None:
    passed = replace(FAILED, code="NBT201", state="passed", message="fine", advice="")
    text = text_of([FAILED, passed, replace(passed, code="NBT204", state="not_applicable", message="nothing")])
    assert "info NBT203" in text
    assert text.index("head_lr = 1.") < text.index("Move the bound.")
    assert "fine" not in text
    assert "1 check passed, 1 not applicable. See docs/checks.md." in text


def test_without_checks_there_is_no_heading() -> None:
    assert check_lines([]) == []
