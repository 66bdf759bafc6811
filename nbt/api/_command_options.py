"""Command-line options that state where and how a search runs, which the record of a study does not contain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbt.paths import absolute_path

_DEFAULTS = {"engine": "local", "workers": 1, "final_seeds": 5, "out": Path("reports")}
_URI_OPTIONS = ("storage", "tracking_uri")
_PATH_OPTIONS = ("experience", "out")
_SYNC_OPTIONS = ("--storage", "--tracking-uri", "--out")


def search_options(**arguments: Any) -> dict[str, str]:
    """Returns the options of `nbt search` that reproduce where and how a search runs, in the given order.

    Args:
        **arguments: Arguments of `nbt.api.search`.

    Returns:
        Option -> value, without the arguments that are None or have their default value. Paths are absolute, and
        passwords are masked.
    """
    from nbt.tracking import redact_uri

    options: dict[str, str] = {}
    for name, value in arguments.items():
        if value is None or (Path(value) if name in _PATH_OPTIONS else value) == _DEFAULTS.get(name):
            continue
        text = str(absolute_path(value) if name in _PATH_OPTIONS else value)
        options[f"--{name.replace('_', '-')}"] = redact_uri(text) if name in _URI_OPTIONS else text
    return options


def sync_options(run_options: Mapping[str, str]) -> dict[str, str]:
    """Returns the subset of the options of a search that `nbt sync` takes as well."""
    return {option: run_options[option] for option in _SYNC_OPTIONS if option in run_options}
