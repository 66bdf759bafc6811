"""NBT103: identical images or near copies under two labels."""

from __future__ import annotations

import numpy as np

from nbt.checks import Check, CheckResult
from nbt.data.checks.copies import copies_text, named_together, same_pixels
from nbt.data.checks.subject import CheckedData


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
        examples, identical = [], 0
        for group in found:
            pixels = same_pixels(subject, group)
            pairs = np.unique(np.stack([pixels, subject.labels[group]], axis=1), axis=0)
            identical += len(np.unique(pairs[:, 0])) < len(pairs)  # one picture with several labels
            _, first = np.unique(subject.labels[group], return_index=True)
            named = [f"{subject.names[i]} ({subject.class_names[subject.labels[i]]})" for i in group[first].tolist()]
            examples.append(named_together(named, identical=len(np.unique(pixels[first])) == 1))
        advice = "Correct the labels, or remove images that belong to more than one class."
        if len(found) > identical:
            advice += " Look at the near copies first: frames of one scene may show different classes."
        return self.failed(
            f"{copies_text(identical, len(found) - identical)} under different labels.",
            advice,
            count=len(found),
            examples=examples,
        )
