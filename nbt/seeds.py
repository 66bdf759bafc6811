"""Seeds for every source of chance, derived and not drawn, so that nothing about them has to be stored."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *names: int | str, bits: int = 63) -> int:
    """Returns a seed that depends on `seed` and on what it is for, e.g. `derive_seed(0, "order", epoch)`.

    Args:
        seed: The user's.
        names: What it is for.
        bits: Size of the result, 7, 15, ... 511; 31 where a library takes no more.
    """
    text = "/".join(str(part) for part in (seed, *names))
    size = (bits + 1) // 8
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "big") >> 1


def generator(seed: int, *names: int | str) -> torch.Generator:
    """Returns a CPU generator seeded by `derive_seed`; drawing on the CPU gives all devices the same numbers."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *names))
