"""NBT104: the same or nearly the same image twice within a part."""

from __future__ import annotations

import numpy as np

from nbt.checks import Check, CheckResult
from nbt.data.checks.subject import CheckedData
from nbt.data.checks.wording import counted


class CopiesWithinPart(Check[CheckedData]):
    """Finds images that occur more than once in a part."""

    code = "NBT104"
    title = "copies of an image within a part"
    severity = "info"

    def run(self, subject: CheckedData) -> CheckResult:
        """Looks for groups of copies in the training, validation or test part."""
        counts, examples = {}, []
        for name, part in subject.parts.items():
            members = [group[np.isin(group, part)] for group in subject.near_copies.groups]
            repeated = [found for found in members if len(found) > 1]
            if repeated:
                counts[name] = sum(len(found) - 1 for found in repeated)
            examples += [f"{' = '.join(subject.names[i] for i in found[:2])} ({name})" for found in repeated]
        if not counts:
            return self.passed("No part contains an image twice.")
        described = ", ".join(f"{n:,} in {name}" for name, n in counts.items())
        return self.failed(
            f"{counted(sum(counts.values()), 'image')} repeated within a part: {described}.",
            "Remove repeated images: they add no information, and weight one picture more than the others.",
            count=sum(counts.values()),
            examples=examples,
        )
