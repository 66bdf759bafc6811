"""NBT108: files and folders that were passed over."""

from __future__ import annotations

from collections import Counter

from nbt.checks import Check, CheckResult
from nbt.data.checks.subject import CheckedData
from nbt.data.checks.wording import counted
from nbt.data.image_files import is_image_name


class PassedOverFiles(Check[CheckedData]):
    """Counts the files and folders of a dataset that were not read, by reason and suffix."""

    code = "NBT108"
    title = "files passed over"
    severity = "warning"

    def run(self, subject: CheckedData) -> CheckResult:
        """Counts what the reader passed over; only images and class folders are worth a warning."""
        layout = subject.listing.layout
        if layout is None:
            return self.not_applicable("The dataset is not a folder of images.")
        if not layout.passed_over:
            return self.passed("Every file was read.")
        counts = Counter((item.reason, item.path.suffix.lower()) for item in layout.passed_over)
        described = [
            f"{counted(n, 'time')} {reason}{f' ({suffix})' if suffix else ''}"
            for (reason, suffix), n in counts.most_common()
        ]
        relevant = any(is_image_name(item.path.name) or not item.path.suffix for item in layout.passed_over)
        return self.failed(
            f"Passed over: {', '.join(described)}.",
            "Move images into the folder of their class; other files may stay.",
            count=len(layout.passed_over),
            examples=(f"{layout.name(item.path)}: {item.reason}" for item in layout.passed_over),
            severity=None if relevant else "info",
        )
