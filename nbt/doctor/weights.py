"""Pretrained weights: which are cached, and whether others can be downloaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from nbt.doctor.diagnosis import OK, WARNING, Diagnosis
from nbt.doctor.services import TIMEOUT, connection_error
from nbt.doctor.sizes import size_text

Connection = Callable[[str, int, float], str]

_MAX_NAMES = 4
_HTTPS = 443


def check_weights(connect: Connection = connection_error, *, timeout: float = TIMEOUT) -> Iterator[Diagnosis]:
    """Yields the cached weights, and whether the servers of torchvision and, where it is installed, timm answer.

    Args:
        connect: Returns why no connection to a host and port can be made; "" if it can.
        timeout: Longest wait for an answer in seconds.
    """
    yield _check_source("torchvision weights", torch_checkpoints(), "*.pth", "download.pytorch.org", connect, timeout)
    if find_spec("timm") is not None:
        yield _check_source("timm weights", hub_cache(), "models--*", "huggingface.co", connect, timeout)


def torch_checkpoints() -> Path:
    """Returns the folder of the weights that torchvision downloads, without importing torch."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or cache / "torch").expanduser() / "hub" / "checkpoints"


def hub_cache() -> Path:
    """Returns the folder of the weights that timm downloads, without importing it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface").expanduser()
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def _check_source(
    subject: str, folder: Path, pattern: str, host: str, connect: Connection, timeout: float
) -> Diagnosis:
    entries = sorted(folder.glob(pattern)) if folder.is_dir() else []
    names = ", ".join(entry.stem for entry in entries[:_MAX_NAMES])
    more = f" and {len(entries) - _MAX_NAMES} more" if len(entries) > _MAX_NAMES else ""
    size = sum(entry.stat().st_size for entry in entries if entry.is_file())
    sizes = f" ({size_text(size)})" if size else ""
    cached = f"cached in {folder}: {names}{more}{sizes}" if entries else f"none cached in {folder}"
    error = connect(host, _HTTPS, timeout)
    if not error:
        return Diagnosis(subject, OK, f"{host} answers; {cached}")
    advice = "use a cached backbone, give --weights FILE, or connect this machine or its proxy to the server"
    return Diagnosis(subject, WARNING, f"{host} cannot be reached ({error}); {cached}", advice)
