"""NBT112: values that are not finite or out of range."""

from __future__ import annotations

from nbt.checks import Check, CheckResult
from nbt.data.checks.subject import CheckedData
from nbt.data.checks.wording import counted
from nbt.data.decoding import FileFacts
from nbt.data.value_range import ValueRange, is_out_of_range


class UnusualValues(Check[CheckedData]):
    """Finds images with values that are NaN, infinite, marked as missing, or far beyond those of the other images."""

    code = "NBT112"
    title = "values that are not finite or out of range"
    severity = "warning"

    def run(self, subject: CheckedData) -> CheckResult:
        """Looks at the images of floats; integers have no such values."""
        images = subject.images
        value_range = images.value_ranges.get("float")
        if value_range is None:
            return self.not_applicable("No file has floats as values.")
        described = {
            name: text
            for name, facts in zip(subject.names, images.facts, strict=True)
            if (text := _describe(facts, value_range))
        }
        low, high = value_range
        if not described:
            return self.passed(f"All values are finite and in the range {low:g} ... {high:g}.")
        return self.failed(
            f"{counted(len(described), 'image')} of floats have values that are not finite or outside {low:g} ... "
            f"{high:g}, the range that became 0 ... 255; they became black or white.",
            "Replace them in the files, or leave these images out.",
            count=len(described),
            examples=(f"{name}: {text}" for name, text in described.items()),
        )


def _describe(facts: FileFacts, value_range: ValueRange) -> str:
    """Returns what is unusual in an image, in words; "" for nothing."""
    texts = []
    if facts.not_finite:
        texts.append(f"{counted(facts.not_finite, 'value')} not finite")
    if is_out_of_range(facts.values, {"float": value_range}):
        texts.append(f"values {facts.low:g} ... {facts.high:g}")
    return ", ".join(texts)
