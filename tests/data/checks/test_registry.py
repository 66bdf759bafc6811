"""Every check of the data has its own code and a section in the documentation."""

from __future__ import annotations

from pathlib import Path

from nbt.checks import SEVERITIES
from nbt.data.checks.registry import DATA_CHECKS


def test_checks_are_documented_and_sorted() -> None:
    codes = [check.code for check in DATA_CHECKS]
    assert codes == sorted(set(codes)) and all(code.startswith("NBT1") for code in codes)
    text = (Path(__file__).parents[3] / "docs" / "checks.md").read_text(encoding="utf-8")
    assert [code for code in codes if f"\n## {code}\n" not in text] == []
    assert {check.severity for check in DATA_CHECKS} <= set(SEVERITIES)
