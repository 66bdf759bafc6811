"""Description of the machine that a study ran on."""

from __future__ import annotations

import platform
from pathlib import Path


def machine() -> str:
    """Returns the processor, the number of threads, and the versions of PyTorch and nbt."""
    import torch

    import nbt

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, nbt {nbt.__version__}"
