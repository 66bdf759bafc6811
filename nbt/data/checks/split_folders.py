"""NBT101: folders that were read as splits, and how."""

from __future__ import annotations

from nbt.checks import Check, CheckResult
from nbt.data.checks.subject import CheckedData

_OWN_NAMES = {"train": "train", "val": "val", "test": "test"}


class SplitFolders(Check[CheckedData]):
    """Says how the folders were read where they are not named train, val and test, or are in another folder."""

    code = "NBT101"
    title = "folders read as splits"
    severity = "info"

    def run(self, subject: CheckedData) -> CheckResult:
        """Compares the folders of the splits with their own names."""
        layout = subject.listing.layout
        if layout is None:
            return self.not_applicable("The dataset is not a folder of images.")
        read_as = {split: layout.name(path) for split, path in layout.parts.items()}
        if layout.split_inside_class:
            return self.failed(
                "Each class folder holds folders of splits, which were read as the splits.",
                "Put the class folders into train/, val/ and test/ to avoid doubt.",
            )
        if all(name in (split, ".") for split, name in read_as.items()):
            return self.passed("The folders are read as they are named.")
        examples = [f"{split or 'class folders'}: {name}/" for split, name in read_as.items()]
        return self.failed(
            f"Read as {', '.join(examples)}.",
            "If this is wrong, put the class folders into train/, val/ and test/.",
            count=len(examples),
            examples=examples,
        )
