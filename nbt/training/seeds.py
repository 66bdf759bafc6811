"""Seeds for every source of chance in a trial, derived and not drawn, so that a resumed trial needs no saved state."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *names: int | str) -> int:
    """Returns a 63-bit seed that depends on `seed` and on what it is for, e.g. `derive_seed(0, "order", epoch)`."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *names: int | str) -> torch.Generator:
    """Returns a CPU generator seeded by `derive_seed`; drawing on the CPU gives all devices the same numbers."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))
