from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from nbt.checks import FAILED, NOT_APPLICABLE, STATES, CheckResult
from nbt.errors import UsageError
from nbt.report.study.checks.registry import (
    DATASET_CHECKS,
    RESULT_CHECKS,
    check_ignored,
    check_result,
    count_sentence,
    study_checks,
)
from nbt.search_config import SearchConfig
from tests.report.study.checks.studies import tiny_studies
from tests.sample_study import sample_study, study_with_priors, unfinished_study

DOCUMENTATION = Path(__file__).parents[4] / "docs" / "checks.md"
IMBALANCE = CheckResult(
    code="NBT106", title="imbalance", severity="warning", state=FAILED, message="10 to 1.", advice="Add images."
)


@pytest.mark.parametrize("check", RESULT_CHECKS, ids=lambda check: check.code)
def test_every_check_has_a_section_at_its_anchor(check: object) -> None:
    result = check_result(sample_study())
    [anchor] = [item.anchor for item in result if item.code == check.code]
    file, name = anchor.split("#")
    assert file == f"docs/{DOCUMENTATION.name}"
    # GitHub makes the anchor of a heading of its words in lower case.
    headings = re.findall(r"^## (.+)$", DOCUMENTATION.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert name in [heading.lower() for heading in headings]


def test_codes_are_unique_and_in_order() -> None:
    codes = [check.code for check in RESULT_CHECKS]
    assert codes == sorted(set(codes))


@pytest.mark.parametrize("record", tiny_studies().values(), ids=tiny_studies())
@pytest.mark.parametrize("check", RESULT_CHECKS, ids=lambda check: check.code)
def test_studies_with_little_data_raise_no_exception(check: object, record: object) -> None:
    result = check.run(record)
    assert result.state in STATES
    assert result.message.endswith("."), "messages are sentences"
    assert result.advice == "" or result.advice.endswith(".")


def test_a_study_without_trials_has_no_failed_check() -> None:
    assert {result.state for result in check_result(tiny_studies()["no trials"])} == {NOT_APPLICABLE}


@pytest.mark.parametrize("record", [sample_study(), study_with_priors(), unfinished_study()])
def test_messages_state_numbers_and_failed_checks_give_advice(record: object) -> None:
    results = check_result(record)
    assert len(results) == len(RESULT_CHECKS)
    for result in results:
        assert bool(result.advice) == result.is_failed
        assert re.search(r"\d", result.message) or result.state == NOT_APPLICABLE


def test_checks_of_the_data_come_from_the_facts_of_the_dataset() -> None:
    base = study_with_priors()
    stored = {**base.dataset, DATASET_CHECKS: [IMBALANCE.to_dict()]}
    results = study_checks(replace(base, dataset=stored))
    assert results[0] == IMBALANCE, "failed checks of one severity are sorted by code"
    assert set(results) == {IMBALANCE, *check_result(base)}


def test_ignored_checks_are_left_out() -> None:
    base = sample_study(dataset={**sample_study().dataset, DATASET_CHECKS: [IMBALANCE.to_dict()]})
    search = SearchConfig(dataset="cub", budget="14", ignore="nbt203,NBT106")
    codes = {result.code for result in study_checks(replace(base, search=search))}
    assert codes == {check.code for check in RESULT_CHECKS} - {"NBT203"}


def test_unknown_codes_name_the_nearest() -> None:
    assert check_ignored("NBT203,nbt201") == ("NBT203", "NBT201")
    assert check_ignored(None) == ()
    with pytest.raises(UsageError, match=r"ignore 'NBT230'.*did you mean NBT209"):
        check_ignored("NBT230")


def test_the_others_are_counted() -> None:
    others = [replace(IMBALANCE, state="passed"), replace(IMBALANCE, state="not_applicable")]
    assert count_sentence(others) == "1 check passed, 1 not applicable."
