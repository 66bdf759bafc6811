from __future__ import annotations

from nbt.checks import FAILED, NOT_APPLICABLE, PASSED
from nbt.report.study.checks.fixed_validation import FixedValidation
from tests.report.study.checks.studies import run

CHECK = FixedValidation()


def test_it_reads_the_facts_of_the_dataset() -> None:
    result = run(CHECK, dataset={"validation_images": 299, "validation_fixed": True})
    assert (result.state, result.severity) == (FAILED, "info")
    assert "299 validation images" in result.message
    assert "test result" in result.advice
    passed = run(CHECK, dataset={"validation_images": 299, "validation_fixed": False})
    assert passed.state == PASSED
    assert "299" in passed.message


def test_studies_that_do_not_store_it_are_not_applicable() -> None:
    assert run(CHECK, dataset={"validation_images": 299}).state == NOT_APPLICABLE
