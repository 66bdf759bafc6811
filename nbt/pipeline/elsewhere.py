"""Elsewhere: where and how a search runs, as options for a shell; the study's record does not know it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbt.task.rows import full_path

_USUAL = {"engine": "local", "workers": 1, "final_seeds": 5, "out": Path("reports")}
_URIS = ("storage", "tracking_uri")
_PATHS = ("experience", "out")
_OF_SYNC = ("--storage", "--tracking-uri", "--out")


def search_options(**given: Any) -> dict[str, str]:
    """Returns the options of `nbt search` that say again where and how it runs, in the order given.

    Args:
        **given: Arguments of `nbt.pipeline.search`. Those that are as usual are left out; paths become absolute, and
            passwords are masked.
    """
    from nbt.tracking import shown_uri

    found: dict[str, str] = {}
    for name, value in given.items():
        if value is None or (Path(value) if name in _PATHS else value) == _USUAL.get(name):
            continue
        text = str(full_path(value) if name in _PATHS else value)
        found[f"--{name.replace('_', '-')}"] = shown_uri(text) if name in _URIS else text
    return found


def sync_options(elsewhere: Mapping[str, str]) -> dict[str, str]:
    """Returns those of a search's options that `nbt sync` takes, too."""
    return {option: elsewhere[option] for option in _OF_SYNC if option in elsewhere}
