"""NBT107: classes that are too small to be divided."""

from __future__ import annotations

import numpy as np

from nbt.checks import Check, CheckResult
from nbt.data.checks.subject import CheckedData
from nbt.data.checks.wording import counted


class SmallClasses(Check[CheckedData]):
    """Finds classes with fewer images than there are parts to divide them into."""

    code = "NBT107"
    title = "classes too small to divide"
    severity = "warning"

    def run(self, subject: CheckedData) -> CheckResult:
        """Looks for classes of which no image could be held out for a part that is drawn from the training images."""
        official = set(subject.listing.roles.tolist())
        drawn = [part for role, part in (("val", "validation"), ("test", "test")) if role not in official]
        if not drawn:
            return self.not_applicable("The validation and test images are official.")
        held_out = [subject.class_counts(subject.parts[part]) for part in drawn]
        small = np.flatnonzero(np.min(held_out, axis=0) == 0)
        needed = 1 + len(drawn)
        if not len(small):
            return self.passed(f"Every class has the {needed} images or more that a division needs.")
        counts = subject.class_counts(np.arange(len(subject.listing)))
        return self.failed(
            f"{counted(len(small), 'class')} of {len(counts)} cannot be divided into training, {' and '.join(drawn)} "
            "images and stay in training where they can.",
            f"Add images: a class needs {needed} or more, and some ten for a useful result; or remove the class.",
            count=len(small),
            examples=(f"{subject.class_names[i]}: {counted(int(counts[i]), 'image')}" for i in small.tolist()),
        )
