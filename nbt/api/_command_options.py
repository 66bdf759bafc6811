"""Elsewhere: where and how a search runs, as options for a shell; the study's record does not know it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbt.paths import absolute_path

_DEFAULTS = {"engine": "local", "workers": 1, "final_seeds": 5, "out": Path("reports")}
_URI_OPTIONS = ("storage", "tracking_uri")
_PATH_OPTIONS = ("experience", "out")
_SYNC_OPTIONS = ("--storage", "--tracking-uri", "--out")


def search_options(**given: Any) -> dict[str, str]:
    """Returns the options of `nbt search` that say again where and how it runs, in the order given.

    Args:
        **given: Arguments of `nbt.api.search`. Those that are as usual are left out; paths become absolute, and
            passwords are masked.
    """
    from nbt.tracking import redact_uri

    found: dict[str, str] = {}
    for name, value in given.items():
        if value is None or (Path(value) if name in _PATH_OPTIONS else value) == _DEFAULTS.get(name):
            continue
        text = str(absolute_path(value) if name in _PATH_OPTIONS else value)
        found[f"--{name.replace('_', '-')}"] = redact_uri(text) if name in _URI_OPTIONS else text
    return found


def sync_options(run_options: Mapping[str, str]) -> dict[str, str]:
    """Returns those of a search's options that `nbt sync` takes, too."""
    return {option: run_options[option] for option in _SYNC_OPTIONS if option in run_options}
