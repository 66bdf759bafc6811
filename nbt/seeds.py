"""Random seeds, derived from the user's seed and a purpose, so that none has to be stored."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *names: int | str, bits: int = 63) -> int:
    """Derives a seed for one purpose, e.g. `derive_seed(0, "order", epoch)`.

    Args:
        seed: The user's seed.
        names: The purpose.
        bits: Size of the result in bits: 7, 15, ... 511; 31 for libraries that accept no more.
    """
    text = "/".join(str(part) for part in (seed, *names))
    size = (bits + 1) // 8
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "big") >> 1


def generator(seed: int, *names: int | str) -> torch.Generator:
    """Returns a CPU generator seeded by `derive_seed`.

    Draws on the CPU are the same for all devices.
    """
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *names))
