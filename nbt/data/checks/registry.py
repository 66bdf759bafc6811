"""The registry of the checks of the data."""

from __future__ import annotations

from nbt.checks import Check
from nbt.data.checks.bits_in_use import BitsInUse
from nbt.data.checks.copies_across_classes import CopiesAcrossClasses
from nbt.data.checks.copies_across_parts import CopiesAcrossParts
from nbt.data.checks.copies_within_part import CopiesWithinPart
from nbt.data.checks.imbalance import Imbalance
from nbt.data.checks.missing_classes import MissingClasses
from nbt.data.checks.passed_over import PassedOverFiles
from nbt.data.checks.resizing import Resizing
from nbt.data.checks.small_classes import SmallClasses
from nbt.data.checks.split_folders import SplitFolders
from nbt.data.checks.subject import CheckedData
from nbt.data.checks.system_folders import SystemFolders
from nbt.data.checks.unreadable import UnreadableImages
from nbt.data.checks.unusual_values import UnusualValues

DATA_CHECKS: tuple[Check[CheckedData], ...] = (
    SplitFolders(),
    CopiesAcrossParts(),
    CopiesAcrossClasses(),
    CopiesWithinPart(),
    MissingClasses(),
    Imbalance(),
    SmallClasses(),
    PassedOverFiles(),
    UnreadableImages(),
    SystemFolders(),
    BitsInUse(),
    UnusualValues(),
    Resizing(),
)
"""The checks of the data, in the order of their codes."""
