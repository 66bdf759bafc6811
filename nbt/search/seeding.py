"""Seeds of the search: derived, not drawn, so that nothing about them has to be stored."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *names: int | str) -> int:
    """Returns a seed of 31 bits that depends on `seed` and on what it is for, e.g. `derive_seed(0, "trial", 12)`."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1
