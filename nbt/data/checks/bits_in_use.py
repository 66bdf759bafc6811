"""NBT111: files of 16 bits that use fewer."""

from __future__ import annotations

from collections import Counter

from nbt.checks import Check, CheckResult
from nbt.data.checks.subject import CheckedData
from nbt.data.checks.wording import share_of
from nbt.data.value_range import bits_in_use


class BitsInUse(Check[CheckedData]):
    """Finds files of 16 bits that use fewer bits, such as the 12 bits of a camera."""

    code = "NBT111"
    title = "16-bit files that use fewer bits"
    severity = "warning"

    def run(self, subject: CheckedData) -> CheckResult:
        """Compares the bits in use over all images with those of the files."""
        images = subject.images
        kinds = Counter(facts.kind for facts in images.facts if facts.kind in ("uint16", "int32"))
        if not kinds:
            return self.not_applicable("No file has integers of more than 8 bits.")
        bits = {kind: bits_in_use(images.value_ranges[kind]) for kind in kinds}
        few = {kind: n for kind, n in bits.items() if n is not None and n < 16}
        if not few:
            return self.passed("The files of more than 8 bits use 16 bits or more.")
        count = sum(kinds[kind] for kind in few)
        ranges = " and ".join(f"{n} bits, 0 ... {2**n - 1:,}" for n in few.values())
        return self.failed(
            f"{share_of(count, len(subject.listing))} are of 16 bits and use {ranges} only, which became 0 ... 255; "
            "the model does the same in predictions.",
            "Nothing is to be done if this is the range of the camera or scanner; else scale the files to 16 bits.",
            count=count,
            examples=(
                f"{name}: values up to {facts.high:,.0f}"
                for name, facts in zip(subject.names, images.facts, strict=True)
                if facts.kind in few
            ),
        )
