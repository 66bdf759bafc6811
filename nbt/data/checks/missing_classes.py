"""NBT105: classes that are missing from a part."""

from __future__ import annotations

import numpy as np

from nbt.checks import Check, CheckResult
from nbt.data.checks.subject import CheckedData
from nbt.data.checks.wording import counted


class MissingClasses(Check[CheckedData]):
    """Finds classes without images in the training, validation or test part."""

    code = "NBT105"
    title = "classes missing from a part"
    severity = "warning"

    def run(self, subject: CheckedData) -> CheckResult:
        """Looks for classes without images in a part; classes without training images have been left out already."""
        untrained = [f"{name}: no training image, {n} left out" for name, n in subject.untrained.items()]
        missing = [
            f"{subject.class_names[label]}: no {part} image"
            for part in ("validation", "test")
            for label in np.flatnonzero(subject.class_counts(subject.parts[part]) == 0).tolist()
        ]
        if not untrained and not missing:
            return self.passed("Every class has images in every part.")
        sentences = []
        if untrained:
            left_out = counted(sum(subject.untrained.values()), "image")
            sentences.append(f"{counted(len(untrained), 'class')} without training images left out, with {left_out}")
        if missing:
            sentences.append(
                f"{counted(len(missing), 'class')} missing from a part: metrics are over the classes present"
            )
        return self.failed(
            f"{'; '.join(sentences)}.",
            "Add images of these classes to the part, or divide the images again.",
            count=len(untrained) + len(missing),
            examples=untrained + missing,
            severity="error" if untrained else None,
        )
