"""The list of the studies on terminals of several widths."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from nbt.cli.display import study_list
from nbt.cli.display.output import print_parts
from nbt.cli.display.study_list import age_text, study_lines
from tests.cli.fakes import SUMMARY

NOW = datetime(2030, 1, 2, 5, tzinfo=UTC)
STUDY = {
    **SUMMARY,
    "name": "photos-mobilenet_v2-width_mult-0.35-non_binary",
    "dataset": "/home/someone/photos",
    "backbone": "mobilenet_v2(width_mult=0.35)",
}


def lines_at(width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    monkeypatch.setattr(study_list, "stdout_console", lambda: console)
    print_parts(console, study_lines([STUDY, SUMMARY], NOW))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_wide_terminal_has_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    header, first, second = lines_at(140, monkeypatch)
    assert header.split() == ["study", "dataset", "backbone", "trials", "best", "when", "state"]
    cells = [cell.strip() for cell in first.split("  ") if cell]
    assert cells == [STUDY["name"], "photos", STUDY["backbone"], "3", "80.0 %", "5 hours ago", "finished"]
    assert second.startswith("birds ")


@pytest.mark.parametrize("width", [80, 60])
def test_a_narrow_terminal_has_two_lines_per_study(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = lines_at(width, monkeypatch)
    assert lines[0] == STUDY["name"], "a name is never cut off"
    assert lines[1].startswith("  finished, 5 hours ago; 3 trials, best 80.0 %; photos")
    assert lines[2:] == ["birds", "  finished, 5 hours ago; 3 trials, best 80.0 %; b, conv3"]
    assert max(map(len, lines)) <= width


def test_interrupted_and_running_trials_have_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = {"complete": 2, "pruned": 3, "failed": 1, "interrupted": 5, "running": 7}
    monkeypatch.setitem(STUDY, "trials", trials)
    assert "; 6 trials, best" in lines_at(80, monkeypatch)[1]


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(seconds=20), "just now"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(hours=47), "1 day ago"),
        (timedelta(days=40), "2029-11-23"),
    ],
)
def test_ages(age: timedelta, text: str) -> None:
    assert age_text(NOW - age, NOW) == text
    assert age_text(None, NOW) == ""
