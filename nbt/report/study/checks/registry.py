"""The registry of the checks of the result, and the checks of a study: those of its data, then those of its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from nbt.checks import NOT_APPLICABLE, PASSED, Check, CheckResult, check_codes, run_checks, sort_results
from nbt.data.checks.registry import DATA_CHECKS
from nbt.option import split_codes
from nbt.report.formatting import pluralise
from nbt.report.stored_values import mappings_at
from nbt.report.study.checks.false_stops import FalseStops
from nbt.report.study.checks.fixed_validation import FixedValidation
from nbt.report.study.checks.learning_curves import LearningCurves
from nbt.report.study.checks.no_difference import NoDifference
from nbt.report.study.checks.optimism import Optimism
from nbt.report.study.checks.space_edge import SpaceEdge
from nbt.report.study.checks.surrogate_skill import SurrogateSkill
from nbt.report.study.checks.trivial_model import TrivialModel
from nbt.report.study.checks.validation_size import ValidationSize
from nbt.tuning.storage.records import StudyRecord

RESULT_CHECKS: tuple[Check[StudyRecord], ...] = (
    NoDifference(),
    ValidationSize(),
    SpaceEdge(),
    SurrogateSkill(),
    TrivialModel(),
    Optimism(),
    LearningCurves(),
    FalseStops(),
    FixedValidation(),
)
"""The checks of the result, in the order of their codes."""

DATASET_CHECKS = "checks"
"""Key of the results of the checks of the data in the facts of the dataset, a list of `CheckResult.to_dict`."""


def check_ignored(ignore: str | None) -> tuple[str, ...]:
    """Returns the codes of the option `ignore`.

    Raises:
        UsageError: No check has one of the codes.
    """
    known = [*(check.code for check in DATA_CHECKS), *(check.code for check in RESULT_CHECKS)]
    return check_codes(split_codes(ignore), known)


def check_result(record: StudyRecord, ignore: Collection[str] = ()) -> tuple[CheckResult, ...]:
    """Returns the results of the checks of a study's result, sorted by `nbt.checks.sort_results`.

    Args:
        record: The study, finished or not.
        ignore: Codes of checks that are left out.
    """
    return run_checks(RESULT_CHECKS, record, ignore)


def study_checks(record: StudyRecord) -> tuple[CheckResult, ...]:
    """Returns the results of all checks of a study, without those that its search ignores.

    The checks of the data were made when the data were loaded and are stored with the study; those of the result are
    made from the record. The order is that of `nbt.checks.sort_results`, so that among failed checks of the same
    severity those of the data come first.
    """
    ignore = split_codes(record.search_config().ignore)
    return sort_results([*data_checks(record), *check_result(record, ignore)])


def data_checks(record: StudyRecord) -> tuple[CheckResult, ...]:
    """Returns the stored results of the checks of the data, without those that the search ignores."""
    ignore = split_codes(record.search_config().ignore)
    stored = [CheckResult.from_dict(values) for values in mappings_at(record.dataset, DATASET_CHECKS)]
    return tuple(result for result in stored if result.code not in ignore)


def count_sentence(results: Iterable[CheckResult]) -> str:
    """Returns how many checks that did not fail passed, and how many were not applicable."""
    counts = Counter(result.state for result in results)
    return f"{pluralise(counts[PASSED], 'check')} passed, {counts[NOT_APPLICABLE]} not applicable."
