"""The machine that a study ran on: its description, the memory of this process and the use of a GPU."""

from __future__ import annotations

import importlib.util
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


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


@contextmanager
def sampled(measure: Callable[[], float], values: list[float], seconds: float = 0.1) -> Iterator[None]:
    """Appends the results of a function that is called again and again in a thread of its own, once at least."""
    stop = threading.Event()

    def sample() -> None:
        while True:
            values.append(measure())
            if stop.wait(seconds):
                return

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def memory_of_process() -> dict[str, float]:
    """Returns the resident memory of this process in MiB: "anonymous", and "file" for mapped and shared pages."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    sizes = {name: int(rows[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile", "RssShmem")}
    return {"anonymous": sizes["RssAnon"], "file": sizes["RssFile"] + sizes["RssShmem"]}


@contextmanager
def gpu_utilisation(device: torch.device) -> Iterator[list[float]]:
    """Yields a list that receives the shares of the time in which the GPU computed, where NVML is available."""
    shares: list[float] = []
    if device.type != "cuda" or importlib.util.find_spec("pynvml") is None:
        yield shares
        return
    import torch

    with sampled(lambda: torch.cuda.utilization(device) / 100, shares):
        yield shares
