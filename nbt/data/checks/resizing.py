"""NBT113: images that are enlarged much, or of which a crop of the centre loses much."""

from __future__ import annotations

import numpy as np

from nbt.checks import Check, CheckResult
from nbt.data.checks.subject import CheckedData
from nbt.data.checks.wording import share_of

MAX_ENLARGEMENT = 2.0
MAX_ASPECT = 2.0
MIN_SHARE = 0.05
"""Share of the images from which the check fails."""


class Resizing(Check[CheckedData]):
    """Finds images whose size or aspect ratio does not suit the image size of the task."""

    code = "NBT113"
    title = "enlarged and cropped images"
    severity = "warning"

    def run(self, subject: CheckedData) -> CheckResult:
        """Looks for images that are enlarged more than twice, or that are more than twice as long as wide."""
        if subject.paths is None:
            return self.not_applicable("The images are not read from files.")
        sizes = np.array([(facts.width, facts.height) for facts in subject.images.facts])
        short, long = sizes.min(axis=1), sizes.max(axis=1)
        size, total = subject.images.size, len(sizes)
        enlarged = size / (long if subject.resize == "pad" else short) > MAX_ENLARGEMENT
        elongated = long / short > MAX_ASPECT
        findings, advice = [], []
        if enlarged.sum() >= MIN_SHARE * total:
            findings.append(f"{share_of(int(enlarged.sum()), total)} are enlarged more than twice to {size} px")
            advice.append(f"use a smaller --image-size, such as {_suitable_size(short, size)}")
        if elongated.sum() >= MIN_SHARE * total and subject.resize == "crop":
            lost = 1 - float((short / long)[elongated].mean())
            findings.append(
                f"{share_of(int(elongated.sum()), total)} have an aspect ratio beyond 2:1, of which the crop of the "
                f"centre loses {100 * lost:.0f} % of the area"
            )
            advice.append("use --resize pad or --resize squash")
        if not findings:
            return self.passed(
                f"Few images are enlarged more than twice to {size} px or lose more than half by the crop."
            )
        found = np.flatnonzero(enlarged | (elongated & (subject.resize == "crop")))
        return self.failed(
            f"{'; '.join(findings)}.",
            f"{'; '.join(advice)}."[:1].upper() + f"{'; '.join(advice)}."[1:],
            count=len(found),
            examples=(f"{subject.names[i]}: {sizes[i, 0]} x {sizes[i, 1]} px" for i in found[:10].tolist()),
        )


def _suitable_size(short: np.ndarray[tuple[int], np.dtype[np.int64]], size: int) -> int:
    """Returns the largest multiple of 32 that enlarges half of the images at most twice; 32 or more."""
    return max(32, min(size, int(MAX_ENLARGEMENT * float(np.median(short))) // 32 * 32))
