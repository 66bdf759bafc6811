"""`nbt cache`: lists and clears the cache."""

from __future__ import annotations

import re
import time
from typing import Any

import click

from nbt.cache import KINDS, CacheEntry, cache_entries, cache_limit, remove_entry
from nbt.cli.display.output import Output
from nbt.cli.options.common import Command, choice_option
from nbt.errors import NbtError
from nbt.paths import cache_folder

_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


@click.command(cls=Command)
@click.option("--clear", is_flag=True, help="Remove the listed entries, except those that a running process uses.")
@click.option(
    "--older-than",
    metavar="DURATION",
    callback=lambda ctx, param, value: None if value is None else _seconds(value, ctx, param),
    show_default="any",
    help="Only entries that were not used for a time such as 12h, 30d or 8w.",
)
@choice_option("--kind", tuple(KINDS), show_default="all", help="Only entries of this kind.")
def command(out: Output, clear: bool, older_than: float | None, kind: str | None) -> int:
    """List or clear the caches of images, profiles and models.

    They hold decoded images, features of frozen units, near copies, fit profiles, hashes, forests of recorded curves,
    pretrained models and downloads. The folder is $NBT_CACHE, else ~/.cache/nbt. After images are decoded and at the
    end of a search, the least recently used entries beyond $NBT_CACHE_LIMIT (default 20GB) are removed; downloads and
    pretrained models do not count and stay. The exit code is 1 if an entry cannot be removed.
    """
    limit, now = cache_limit(), time.time()
    entries = [
        entry
        for entry in reversed(cache_entries(KINDS if kind is None else (kind,)))
        if older_than is None or now - entry.last_used > older_than
    ]
    removed, errors = _remove(entries) if clear else ([], [])
    shown = removed if clear else entries
    size = sum(entry.bytes for entry in shown)
    if out.json:
        totals = {"folder": cache_folder(), "limit_bytes": limit, "bytes": size}
        kept = [entry.name for entry in entries if entry not in removed] if clear else None
        out.print_json({**totals, "cleared": clear, "entries": [_json(entry) for entry in shown], "kept": kept})
    else:
        out.print_rows([_row(entry, now) for entry in shown], right_aligned=["size"], empty_text="no entries")
        count = "1 entry" if len(shown) == 1 else f"{len(shown)} entries"
        done = f"removed, {len(entries) - len(shown)} in use" if clear else f"in {cache_folder()}"
        out.print(f"{count}, {_size_text(size)} {done}; NBT_CACHE_LIMIT {_size_text(limit)}")
    if errors:
        raise NbtError(f"{len(errors)} entries cannot be removed: {errors[0]}")
    return 0


def _seconds(text: str, ctx: click.Context, param: click.Parameter) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text.strip().lower())
    if match is None:
        raise click.BadParameter(f"{text!r} is no duration; expected one such as 12h, 30d or 8w", ctx, param)
    return float(match[1]) * _SECONDS[match[2]]


def _remove(entries: list[CacheEntry]) -> tuple[list[CacheEntry], list[OSError]]:
    """Returns the entries that were removed, and the errors of those that cannot be removed."""
    removed, errors = [], []
    for entry in entries:
        try:
            if remove_entry(entry):
                removed.append(entry)
        except OSError as error:
            errors.append(error)
    return removed, errors


def _json(entry: CacheEntry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.name,
        "dataset": entry.dataset,
        "bytes": entry.bytes,
        "last_used": entry.last_used,
    }


def _row(entry: CacheEntry, now: float) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.name[:20],
        "dataset": entry.dataset,
        "size": _size_text(entry.bytes),
        "last use": _ago(now - entry.last_used),
    }


def _size_text(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"
