"""What the studies say of the machine they ran on."""

from __future__ import annotations

import platform
from pathlib import Path


def machine() -> str:
    """Names the machine."""
    import torch

    import nbt

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        rows = info.read_text().splitlines()
        name = next((row.split(":")[1].strip() for row in rows if row.startswith("model name")), name)
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, nbt {nbt.__version__}"
