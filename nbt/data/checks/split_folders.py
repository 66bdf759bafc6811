"""NBT101: folders that were read as splits, and how."""

from __future__ import annotations

from nbt.checks import Check, CheckResult
from nbt.data.checks.subject import CheckedData
from nbt.data.readers.split_names import other_words, split_of_name

_SEPARATE = "put the class folders into train/, val/ and test/"


class SplitFolders(Check[CheckedData]):
    """Says how folders were read that are not named train, val and test, or that lie in another folder."""

    code = "NBT101"
    title = "folders read as splits"
    severity = "info"

    def run(self, subject: CheckedData) -> CheckResult:
        """Compares the folders of the splits with their own names, and looks for classes that are named like splits."""
        layout = subject.listing.layout
        if layout is None:
            return self.not_applicable("The dataset is not a folder of images.")
        if layout.split_inside_class:
            return self.failed(
                "Each class folder holds folders of splits, which were read as the splits.",
                f"If this is wrong, {_SEPARATE} or give the folders other names.",
            )
        read_as = {split: layout.name(path) for split, path in layout.parts.items()}
        if any(name not in (split, ".") for split, name in read_as.items()):
            examples = [f"{name}/ as {split or 'the folder of the classes'}" for split, name in read_as.items()]
            return self.failed(
                f"Read {', '.join(examples)}.",
                f"If this is wrong, {_SEPARATE}.",
                count=len(examples),
                examples=examples,
            )
        alike = [name for name in subject.class_names if split_of_name(name) and not other_words(name)]
        if alike:
            return self.failed(
                f"Folders that are named like splits were read as classes: {', '.join(alike)}.",
                f"If they are splits, {_SEPARATE}.",
                count=len(alike),
                examples=alike,
                severity="warning",
            )
        return self.passed("The folders were read as they are named.")
