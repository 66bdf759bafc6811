"""The closing summary of `nbt search` on a terminal."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from nbt.checks import FAILED, CheckResult
from nbt.cli.display import summary
from nbt.cli.display.output import print_parts
from tests.sample_study import BEST, sample_study


def printed(width: int) -> list[str]:
    record = sample_study()
    assert record.recommended == "trial 12"
    console = Console(file=io.StringIO(), width=width)
    print_parts(console, summary.search_summary(record, BEST, Path("reports") / record.config.name / "report.html"))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def make_check(code: str, severity: str) -> CheckResult:
    return CheckResult(
        code=code, severity=severity, state=FAILED, title="t", message=f"{code} " * 40, advice="Do this."
    )


@pytest.mark.parametrize("width", [80, 60])
def test_a_summary_has_at_most_12_lines(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [make_check("NBT202", "error"), make_check("NBT205", "warning"), make_check("NBT201", "info")]
    monkeypatch.setattr(summary, "study_checks", lambda record: tuple(checks))
    lines = printed(width)
    assert len(lines) <= 12
    assert all(len(line) <= width for line in lines if "reports/" not in line)
    [worst] = [line for line in lines if "NBT202" in line]
    assert worst.startswith("  error NBT202  NBT202 NBT202") and worst.endswith("…")
    [others] = [line for line in lines if "more failed checks" in line]
    assert others == "  2 more failed checks in the report: NBT205 and NBT201"


def test_headline_baseline_and_files_are_named() -> None:
    text = "\n".join(printed(80))
    assert text.startswith("cub-mobilenet_v2-non_binary, final runs on validation images: Trial 12 is better")
    assert "test accuracy    69.5 %  [66.8, 72.1]  1174 images" in text
    assert "default recipe   65.1 %  [62.3, 67.8]" in text
    assert "settings         trial 12: depth 0.80 frozen 0.35 lr 0.013 sp 0.60" in text
    assert "next             nbt predict reports/cub-mobilenet_v2-non_binary/model IMAGES..." in text, (
        "one line to copy"
    )


def test_a_stream_has_no_model() -> None:
    record = sample_study()
    stream = dataclasses.replace(record, config=dataclasses.replace(record.config, scenario="class", tasks=2))
    lines = [str(part) for part in summary.search_summary(stream, BEST, Path("report.html"))]
    assert not any("nbt predict" in line for line in lines)
