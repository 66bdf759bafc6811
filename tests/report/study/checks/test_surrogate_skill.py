from __future__ import annotations

from typing import Any

from nbt.checks import FAILED, NOT_APPLICABLE, PASSED, CheckResult
from nbt.report.study.checks.surrogate_skill import SurrogateSkill
from tests.report.study.checks.studies import run
from tests.sample_study import stored_diagnostics


def result_of(**skill: Any) -> CheckResult:
    return run(SurrogateSkill(), prior_diagnostics={**stored_diagnostics(), "skill": skill})


def test_a_correlation_above_0_passes() -> None:
    result = result_of(correlation=0.7, low=0.35, high=0.88, trials=22)
    assert result.state == PASSED
    assert "22 full-length trials" in result.message
    assert "+0.70 (95 % interval +0.35 to +0.88)" in result.message


def test_an_interval_with_0_fails() -> None:
    result = result_of(correlation=0.1, low=-0.33, high=0.5, trials=22)
    assert (result.state, result.severity) == (FAILED, "warning")
    assert "--no-heuristics" in result.advice


def test_few_trials_cannot_tell() -> None:
    assert result_of(correlation=0.1, low=-0.6, high=0.7, trials=9).state == NOT_APPLICABLE
    assert result_of(correlation=0.95, low=0.7, high=0.99, trials=9).state == PASSED


def test_studies_without_cross_validation_are_not_applicable() -> None:
    assert run(SurrogateSkill()).state == NOT_APPLICABLE
    assert run(SurrogateSkill(), prior_diagnostics=stored_diagnostics()).state == NOT_APPLICABLE
    assert result_of(correlation=None, low=None, high=None, trials=22).state == NOT_APPLICABLE
