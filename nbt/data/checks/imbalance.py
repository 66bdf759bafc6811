"""NBT106: imbalance of the classes."""

from __future__ import annotations

import numpy as np

from nbt.checks import Check, CheckResult
from nbt.data.checks.subject import CheckedData

MAX_RATIO = 3.0
"""Largest accepted ratio of the largest class to the smallest one."""


class Imbalance(Check[CheckedData]):
    """Compares the largest and the smallest class of the training and validation images."""

    code = "NBT106"
    title = "imbalance"
    severity = "warning"

    def run(self, subject: CheckedData) -> CheckResult:
        """Looks for a class with more than `MAX_RATIO` times as many images as another one."""
        counts = subject.class_counts(np.concatenate([subject.split.train, subject.split.val]))
        low, high = int(counts.argmin()), int(counts.argmax())
        ratio = counts[high] / counts[low]
        if ratio == 1:
            return self.passed(f"Every class has {counts[high]:,} training and validation images.")
        found = (
            f"Class {subject.class_names[high]} has {counts[high]:,} training and validation images, class "
            f"{subject.class_names[low]} {counts[low]:,}: {ratio:.1f} to 1."
        )
        if ratio <= MAX_RATIO:
            return self.passed(found)
        small = np.flatnonzero(counts * MAX_RATIO < counts[high])
        return self.failed(
            found,
            "Judge the model by --metric balanced_accuracy or macro_f1 and by the recall per class, and add images of "
            "the smallest classes.",
            count=len(small),
            examples=(
                f"{subject.class_names[i]}: {counts[i]:,}" for i in sorted(small.tolist(), key=lambda i: counts[i])
            ),
        )
