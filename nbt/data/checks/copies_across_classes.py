"""NBT103: the same or nearly the same image under two labels."""

from __future__ import annotations

import numpy as np

from nbt.checks import Check, CheckResult
from nbt.data.checks.subject import CheckedData
from nbt.data.checks.wording import counted


class CopiesAcrossClasses(Check[CheckedData]):
    """Finds images with a near copy of another class."""

    code = "NBT103"
    title = "copies of an image under two labels"
    severity = "warning"

    def run(self, subject: CheckedData) -> CheckResult:
        """Looks for groups of copies with more than one label."""
        found = [group for group in subject.near_copies.groups if len(np.unique(subject.labels[group])) > 1]
        if not found:
            return self.passed("No image has a copy with another label.")
        examples = []
        for group in found:
            _, first = np.unique(subject.labels[group], return_index=True)
            named = [f"{subject.names[i]} ({subject.class_names[subject.labels[i]]})" for i in group[first].tolist()]
            examples.append(" = ".join(named))
        return self.failed(
            f"{counted(len(found), 'image')} with copies under different labels.",
            "Correct the labels, or remove images that belong to more than one class.",
            count=len(found),
            examples=examples,
        )
