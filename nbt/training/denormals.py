"""Numbers too small for the processor's fast path, which Adam's moments become where gradients vanish for long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Counts numbers below 1e-38 as 0 on this thread, and puts the processor back as it was.

    A moment that is halved a hundred times is that small; steps on single images then take several times as long.
    """
    # torch sets the mode but does not tell it.
    earlier = float(torch.tensor(1e-38) * 0.1) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(earlier)
