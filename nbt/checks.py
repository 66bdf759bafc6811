"""The frame of the checks of data and results: what a check is, what it returns, and how checks are run.

The checks of the data have the codes NBT1xx (`nbt.data.checks`), those of the result of a search NBT2xx
(`nbt.report.study.checks`). Each code has a section in `docs/checks.md`.
"""

from __future__ import annotations

import dataclasses
import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from nbt.errors import UsageError, nearest, one_line_message

Subject = TypeVar("Subject")

_log = logging.getLogger(__name__)

SEVERITIES = ("error", "warning", "info")
"""Severities from the worst to the least. No check stops a search."""

FAILED, PASSED, NOT_APPLICABLE = STATES = ("failed", "passed", "not_applicable")
"""States of a check."""

MAX_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """Result of a check.

    Attributes:
        code: Code of the check, such as "NBT203".
        title: What the check looks for, in a few words.
        severity: One of `SEVERITIES`.
        state: One of `STATES`.
        message: What was found, or the reason why the check is not applicable: one sentence.
        advice: What to do about it: one sentence; "" unless the check failed.
        count: Number of cases found.
        examples: Up to `MAX_EXAMPLES` of them.
    """

    code: str
    title: str
    severity: str
    state: str
    message: str
    advice: str = ""
    count: int = 0
    examples: tuple[str, ...] = ()

    @property
    def is_failed(self) -> bool:
        """Whether the check found what it looks for."""
        return self.state == FAILED

    @property
    def anchor(self) -> str:
        """Place of the explanation in the documentation."""
        return f"docs/checks.md#{self.code.lower()}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the result in JSON types."""
        return {**dataclasses.asdict(self), "examples": list(self.examples), "documentation": self.anchor}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CheckResult:
        """Builds a result from the output of `to_dict`; unknown keys, as of a later version, are ignored."""
        names = {field.name for field in dataclasses.fields(cls)}
        known = {name: value for name, value in values.items() if name in names}
        return cls(**{**known, "examples": tuple(known.get("examples", ()))})


class Check(ABC, Generic[Subject]):
    """A check of a subject, such as the images of a task or the record of a study."""

    code: ClassVar[str]
    title: ClassVar[str]
    severity: ClassVar[str]

    @abstractmethod
    def run(self, subject: Subject) -> CheckResult:
        """Returns `failed(...)`, `passed(...)` or `not_applicable(...)`."""

    def failed(
        self,
        message: str,
        advice: str,
        *,
        count: int = 1,
        examples: Iterable[str] = (),
        severity: str | None = None,
    ) -> CheckResult:
        """Returns that the check found what it looks for.

        Args:
            message: What was found.
            advice: What to do about it.
            count: Number of cases.
            examples: Some cases; the first `MAX_EXAMPLES` are kept.
            severity: Severity of this case; None means that of the check.
        """
        shown = tuple(examples)[:MAX_EXAMPLES]
        result = self._result(FAILED, message, advice=advice, count=count, examples=shown)
        return dataclasses.replace(result, severity=severity or self.severity)

    def passed(self, message: str) -> CheckResult:
        """Returns that the check did not find what it looks for."""
        return self._result(PASSED, message)

    def not_applicable(self, reason: str) -> CheckResult:
        """Returns that the check cannot be made, with the reason."""
        return self._result(NOT_APPLICABLE, reason)

    def _result(self, state: str, message: str, **values: Any) -> CheckResult:
        return CheckResult(
            code=self.code, title=self.title, severity=self.severity, state=state, message=message, **values
        )


def run_checks(
    checks: Iterable[Check[Subject]], subject: Subject, ignore: Collection[str] = ()
) -> tuple[CheckResult, ...]:
    """Returns the results of checks, sorted by `sort_results`.

    A check that raises is not applicable, with its error as the reason, because no check may stop a search.

    Args:
        checks: The checks.
        subject: What they check.
        ignore: Codes of checks that are left out.
    """
    return sort_results(_run(check, subject) for check in checks if check.code not in ignore)


def sort_results(results: Iterable[CheckResult]) -> tuple[CheckResult, ...]:
    """Returns results with failed ones first, the worst of them at the top, then by code."""
    return tuple(sorted(results, key=lambda r: (STATES.index(r.state), SEVERITIES.index(r.severity), r.code)))


def log_failed(results: Iterable[CheckResult]) -> None:
    """Logs failed checks, one line each; the command line shows the severity of the check as that of the line."""
    for result in sort_results(results):
        if result.is_failed:
            text = f"{result.code}: {result.message} {result.advice}"
            logging.getLogger("nbt").warning("%s", text, extra={"severity": result.severity})


def check_codes(codes: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """Returns the codes that the user wants to ignore, in upper case.

    Raises:
        UsageError: A code is unknown.
    """
    upper = tuple(code.upper() for code in codes)
    for code in upper:
        if code not in known:
            raise UsageError(f"ignore {code!r}: no check has this code; {nearest(code, known)}")
    return upper


def _run(check: Check[Subject], subject: Subject) -> CheckResult:
    try:
        return check.run(subject)
    except Exception as error:
        _log.debug("check %s", check.code, exc_info=error)
        return check.not_applicable(f"The check itself failed: {one_line_message(error)}")
