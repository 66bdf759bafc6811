"""NBT101: folders that were read as splits, and how."""

from __future__ import annotations

from nbt.checks import MAX_EXAMPLES, Check, CheckResult
from nbt.data.checks.subject import CheckedData
from nbt.data.readers.split_names import other_words, split_of_name

_SEPARATE = "put the class folders into train/, val/ and test/"


def _shared_subfolders(subject: CheckedData) -> list[str]:
    """Returns the names of the folders that every class folder holds, if it holds two or more and no others."""
    layout = subject.listing.layout
    if layout is None or subject.paths is None:
        return []
    inner: dict[str, set[str]] = {}
    for path in subject.paths:
        parent = next(part for part in layout.parts.values() if path.is_relative_to(part))
        label, *folders = path.relative_to(parent).parts[:-1]
        inner.setdefault(label, set()).add(folders[0] if folders else "")
    first, *others = inner.values()
    is_shared = len(first) > 1 and "" not in first and all(names == first for names in others)
    return sorted(first) if is_shared else []


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
        inner = _shared_subfolders(subject)
        if inner:
            return self.failed(
                f"The folders {', '.join(subject.class_names[:MAX_EXAMPLES])} were read as classes; each holds the "
                f"folders {', '.join(inner[:MAX_EXAMPLES])}, which were not.",
                f"If the inner folders are the classes, join the outer ones, or {_SEPARATE}.",
                count=len(subject.class_names),
                severity="warning",
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
