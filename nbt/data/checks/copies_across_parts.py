"""NBT102: identical images or near copies in two parts."""

from __future__ import annotations

import numpy as np

from nbt.checks import Check, CheckResult
from nbt.data.checks.copies import copies_text, named_together, same_pixels
from nbt.data.checks.subject import CheckedData
from nbt.data.checks.wording import counted, share_of
from nbt.data.splits import Index

MAX_SHARE = 0.01
"""Share of copied test images above which the check is an error."""


class CopiesAcrossParts(Check[CheckedData]):
    """Finds images with a near copy in another part."""

    code = "NBT102"
    title = "copies of an image in two parts"
    severity = "warning"

    def run(self, subject: CheckedData) -> CheckResult:
        """Looks for copies of test images outside the test part, and of training images in the validation part."""
        copied = copied_test_images(subject)
        across = [group for group in subject.near_copies.groups if len(_parts_of(subject, group)) > 1]
        if not across:
            mirrored = [pair for pair in subject.near_copies.mirrored if len(_parts_of(subject, pair)) > 1]
            if not mirrored:
                return self.passed("No image has a copy in another part.")
            return self.failed(
                f"{counted(len(mirrored), 'pair')} of mirrored copies in two parts; no other copies.",
                "Keep mirrored copies in one part, unless a mirrored image shows another class.",
                count=len(mirrored),
                examples=[_describe(subject, pair) for pair in mirrored],
                severity="info",
            )
        effect = "no test image is among them, but the validation metric of the trials is too high"
        if len(copied):
            share = share_of(len(copied), len(subject.split.test))
            effect = (
                f"{share} of the test part have a copy in training or validation, so that the test metric is too high"
            )
        identical = sum(_is_identical_across(subject, group) for group in across)
        near = len(across) - identical
        return self.failed(
            f"{copies_text(identical, near)} in two parts; {effect}.",
            f"Keep all copies of an image{', and all frames of a scene,' if near else ''} in one part.",
            count=len(across),
            examples=[_describe(subject, group) for group in across],
            severity="error" if len(copied) > MAX_SHARE * len(subject.split.test) else None,
        )


def copied_test_images(subject: CheckedData) -> Index:
    """Returns the indices of the test images that have a near copy in training or validation, int64 (n,)."""
    test = subject.split.test
    copied = [group[np.isin(group, test)] for group in subject.near_copies.groups if not np.isin(group, test).all()]
    return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *copied]))


def _parts_of(subject: CheckedData, indices: Index) -> list[str]:
    return [name for name, part in subject.parts.items() if np.isin(indices, part).any()]


def _is_identical_across(subject: CheckedData, indices: Index) -> bool:
    """Returns whether two parts have images with equal pixels among these."""
    pixels = same_pixels(subject, indices)
    return any(len(_parts_of(subject, indices[pixels == value])) > 1 for value in np.unique(pixels))


def _describe(subject: CheckedData, indices: Index) -> str:
    """Names one image of every part that has some."""
    parts = {name: indices[np.isin(indices, part)] for name, part in subject.parts.items()}
    firsts = {name: int(found[0]) for name, found in parts.items() if len(found)}
    pixels = same_pixels(subject, np.array(list(firsts.values())))
    named = [f"{subject.names[first]} ({name})" for name, first in firsts.items()]
    return named_together(named, identical=len(np.unique(pixels)) == 1)
