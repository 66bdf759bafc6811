"""The cache of fit profiles, keyed by a hash of everything that a profile depends on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbt.cache import touch
from nbt.files import atomic_file
from nbt.fit.fit_profile import FitProfile
from nbt.paths import cache_folder

logger = logging.getLogger("nbt")


def profile_path(identity: Mapping[str, Any]) -> Path:
    """Returns the file of the profile with an identity of JSON types; its folder is created."""
    text = json.dumps(identity, sort_keys=True)
    return cache_folder("fit") / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def read_profile(path: Path) -> FitProfile | None:
    """Returns a cached profile; None if it is missing or damaged."""
    try:
        profile = FitProfile.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    touch(path)
    return profile


def write_profile(path: Path, profile: FitProfile) -> None:
    """Writes a profile to the cache atomically; a failure is logged, and the next call measures again."""
    try:
        with atomic_file(path) as temporary:
            temporary.write_text(profile.to_json(), encoding="utf-8")
    except OSError as error:
        logger.warning("the fit profile is not cached: %s", error)
