"""NBT110: hidden, thumbnail and system folders."""

from __future__ import annotations

from nbt.checks import Check, CheckResult
from nbt.data.checks.subject import CheckedData
from nbt.data.checks.wording import counted
from nbt.data.image_files import SYSTEM_REASONS


class SystemFolders(Check[CheckedData]):
    """Names the hidden, thumbnail and system files and folders, and reports of nbt, which are never read."""

    code = "NBT110"
    title = "hidden and system folders"
    severity = "info"

    def run(self, subject: CheckedData) -> CheckResult:
        """Lists what the reader did not enter."""
        if subject.listing.layout is None:
            return self.not_applicable("The dataset is not a folder of images.")
        found = [file.path for file in subject.listing.passed_over if file.reason in SYSTEM_REASONS]
        if not found:
            return self.passed("There are no hidden, thumbnail or system files and folders.")
        return self.failed(
            f"{counted(len(found), 'hidden, thumbnail or system item')} not read.",
            "Nothing needs to be done; if one of them is a class, rename it.",
            count=len(found),
            examples=map(subject.file_name, found),
        )
