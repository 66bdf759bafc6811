"""NBT109: images that cannot be read."""

from __future__ import annotations

from pathlib import Path

from nbt.checks import Check, CheckResult
from nbt.data.checks.subject import CheckedData
from nbt.data.checks.wording import share_of

ERROR_SHARE = 0.05
"""Share of unreadable images from which the check has the severity "error"."""


class UnreadableImages(Check[CheckedData]):
    """Finds damaged and truncated images, and files of formats that cannot be decoded."""

    code = "NBT109"
    title = "unreadable images"
    severity = "warning"

    def run(self, subject: CheckedData) -> CheckResult:
        """Counts the images that could not be decoded."""
        images = subject.images
        n, total = len(images.unreadable), len(subject.listing) + len(images.unreadable)
        if not n:
            return self.passed(f"All {total:,} images can be read.")
        return self.failed(
            f"{share_of(n, total)} cannot be read and are left out.",
            "Copy these files again or remove them.",
            count=n,
            examples=(
                f"{subject.file_name(Path(name))}: {reason.replace(name, Path(name).name)}"
                for name, reason in zip(images.unreadable, images.reasons, strict=True)
            ),
            severity="error" if n >= ERROR_SHARE * total else None,
        )
