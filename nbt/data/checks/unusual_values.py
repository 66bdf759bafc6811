"""NBT112: values that are not finite or out of range."""

from __future__ import annotations

from nbt.checks import Check, CheckResult
from nbt.data.checks.subject import CheckedData
from nbt.data.checks.wording import counted
from nbt.data.decoding import FileFacts
from nbt.data.value_range import ValueRanges, is_out_of_range


class UnusualValues(Check[CheckedData]):
    """Finds images with values that are NaN, infinite, marked as missing, or far beyond those of the other images."""

    code = "NBT112"
    title = "values that are not finite or out of range"
    severity = "warning"

    def run(self, subject: CheckedData) -> CheckResult:
        """Looks at the images with values of more than 8 bits."""
        images = subject.images
        if not images.value_ranges:
            return self.not_applicable("No file has values of more than 8 bits.")
        described = {
            name: text
            for name, facts in zip(subject.names, images.facts, strict=True)
            if (text := _describe(facts, images.value_ranges))
        }
        ranges = " and ".join(f"{low:g} ... {high:g}" for low, high in images.value_ranges.values())
        if not described:
            return self.passed(f"All values are finite and in the range {ranges}.")
        return self.failed(
            f"{counted(len(described), 'image')} with values that are not finite or outside {ranges}, the range that "
            "became 0 ... 255; these values became black or white.",
            "Replace them in the files, or leave these images out.",
            count=len(described),
            examples=(f"{name}: {text}" for name, text in described.items()),
        )


def _describe(facts: FileFacts, ranges: ValueRanges) -> str:
    """Returns what is unusual in an image, in words; "" for nothing."""
    texts = []
    if facts.not_finite:
        texts.append(f"{counted(facts.not_finite, 'value')} not finite")
    if is_out_of_range(facts.values, ranges):
        texts.append(f"values {facts.low:g} ... {facts.high:g}")
    return ", ".join(texts)
