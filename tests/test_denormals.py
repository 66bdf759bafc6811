from __future__ import annotations

import torch

from nbt.devices import flush_denormals


def is_flushed() -> bool:
    return float(torch.tensor(1e-38) * 0.1) == 0.0


def test_denormals_are_flushed_inside_and_the_mode_is_restored() -> None:
    try:
        for was_flushing in (False, True):
            torch.set_flush_denormal(was_flushing)
            with flush_denormals():
                assert is_flushed()
            assert is_flushed() is was_flushing
    finally:
        torch.set_flush_denormal(False)
