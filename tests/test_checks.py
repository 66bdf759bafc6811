"""The frame of the checks: states, order, ignored codes, and checks that raise."""

from __future__ import annotations

import pytest

from nbt.checks import Check, CheckResult, check_codes, log_failed, run_checks
from nbt.cli.display.output import Output
from nbt.errors import UsageError


class _Negative(Check[list[int]]):
    code, title, severity = "NBT901", "negative numbers", "warning"

    def run(self, subject: list[int]) -> CheckResult:
        found = [n for n in subject if n < 0]
        if not subject:
            return self.not_applicable("There are no numbers.")
        if not found:
            return self.passed("All numbers are positive.")
        return self.failed("Some are negative.", "Remove them.", count=len(found), examples=map(str, found))


class _Zero(Check[list[int]]):
    code, title, severity = "NBT902", "zeros", "error"

    def run(self, subject: list[int]) -> CheckResult:
        return self.failed("A zero.", "Remove it.") if 1 // min(subject, default=1) == 0 else self.passed("No zero.")


def test_failed_checks_come_first_and_examples_are_limited() -> None:
    negative, zero = run_checks([_Zero(), _Negative()], [-1, -2, -3, -4, -5, -6])
    assert (negative.code, negative.state, negative.count) == ("NBT901", "failed", 6)
    assert negative.examples == ("-1", "-2", "-3", "-4", "-5")
    assert zero.state == "passed"


def test_check_that_raises_is_not_applicable() -> None:
    results = {result.code: result for result in run_checks([_Zero(), _Negative()], [0])}
    assert results["NBT902"].state == "not_applicable"
    assert "division" in results["NBT902"].message


def test_ignored_codes_do_not_run() -> None:
    assert [r.code for r in run_checks([_Zero(), _Negative()], [1], ignore=["NBT902"])] == ["NBT901"]
    assert check_codes(["nbt902"], ["NBT901", "NBT902"]) == ("NBT902",)
    with pytest.raises(UsageError, match="NBT903"):
        check_codes(["NBT903"], ["NBT901", "NBT902"])


def test_result_survives_json() -> None:
    (result,) = run_checks([_Negative()], [-1])
    assert CheckResult.from_dict({**result.to_dict(), "later": 1}) == result
    assert result.to_dict()["documentation"] == "docs/checks.md#nbt901"


def test_failed_checks_are_lines_with_their_severity(capsys: pytest.CaptureFixture[str]) -> None:
    Output().configure()
    log_failed([*run_checks([_Negative()], [-1]), *run_checks([_Zero()], [4])])
    assert capsys.readouterr().err == (
        "error: NBT902: A zero. Remove it.\nwarning: NBT901: Some are negative. Remove them.\n"
    )
    Output().configure(verbosity=-1)
    log_failed(run_checks([_Negative()], [-1, 4]))
    assert capsys.readouterr().err == ""
