"""NBT104: identical images or near copies within a part."""

from __future__ import annotations

import numpy as np

from nbt.checks import Check, CheckResult
from nbt.data.checks.copies import copies_text, named_together, same_pixels
from nbt.data.checks.subject import CheckedData


class CopiesWithinPart(Check[CheckedData]):
    """Finds images that occur more than once in a part."""

    code = "NBT104"
    title = "copies of an image within a part"
    severity = "info"

    def run(self, subject: CheckedData) -> CheckResult:
        """Looks for groups of copies in the training, validation or test part."""
        counts: dict[str, int] = {}
        examples, identical = [], 0
        for name, part in subject.parts.items():
            members = [group[np.isin(group, part)] for group in subject.near_copies.groups]
            for found in members:
                if len(found) < 2:
                    continue
                pixels = same_pixels(subject, found)
                counts[name] = counts.get(name, 0) + len(found) - 1
                identical += len(found) - len(np.unique(pixels))
                shown = [subject.names[i] for i in found[:2]]
                examples.append(f"{named_together(shown, identical=bool(pixels[0] == pixels[1]))} ({name})")
        if not counts:
            return self.passed("No part contains an image twice.")
        total = sum(counts.values())
        described = ", ".join(f"{n:,} in {name}" for name, n in counts.items())
        advice = ["Remove identical images: they add no information, and weight one picture more than the others."]
        if total > identical:
            advice = [
                *(advice if identical else []),
                "Keep one of each group of near copies, or a few frames of a scene: more of them add little "
                "information, and weight one scene more than the others.",
            ]
        return self.failed(
            f"{copies_text(identical, total - identical)} within a part: {described}.",
            " ".join(advice),
            count=total,
            examples=examples,
        )
