"""NBT108: files that were passed over."""

from __future__ import annotations

from nbt.checks import Check, CheckResult
from nbt.data.checks.subject import CheckedData
from nbt.data.checks.wording import counted
from nbt.data.formats import NOT_AN_IMAGE
from nbt.data.image_files import LOOP, SYSTEM_REASONS, describe_passed_over
from nbt.data.readers.manifest import REPEATED

_HARMLESS = (NOT_AN_IMAGE, REPEATED, LOOP)


class PassedOverFiles(Check[CheckedData]):
    """Counts the files of a dataset that were not read, by reason and suffix."""

    code = "NBT108"
    title = "files passed over"
    severity = "warning"

    def run(self, subject: CheckedData) -> CheckResult:
        """Counts what the reader passed over; files that are no images are not worth a warning."""
        if subject.paths is None:
            return self.not_applicable("The images are not read from files.")
        files = [file for file in subject.listing.passed_over if file.reason not in SYSTEM_REASONS]
        if not files:
            return self.passed("Every file was read.")
        images_first = sorted(files, key=lambda file: file.reason in _HARMLESS)
        return self.failed(
            f"{counted(len(files), 'file')} passed over: {describe_passed_over(files)}.",
            "Move images into the folder of their class or convert them; other files may stay.",
            count=len(files),
            examples=(f"{subject.file_name(file.path)}: {file.reason}" for file in images_first),
            severity="info" if images_first[0].reason in _HARMLESS else None,
        )
