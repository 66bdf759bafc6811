"""Diagnosis: the result of one check of installation or machine."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

OK, WARNING, PROBLEM = STATUSES = ("ok", "warning", "problem")


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check.

    Attributes:
        subject: What was checked, such as "torch" or "cache".
        status: One of `STATUSES`: a search works, works worse, or does not work.
        message: What was found, without passwords.
        advice: What to do about it; "" if the status is "ok".
    """

    subject: str
    status: str
    message: str
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the diagnosis in JSON types."""
        return dataclasses.asdict(self)
