"""Versions of Python, of nbt and of the packages that it needs, read from their metadata without importing them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from importlib import metadata

from packaging.requirements import Requirement

from nbt._version import __version__
from nbt.doctor.diagnosis import OK, PROBLEM, WARNING, Diagnosis

DISTRIBUTION = "nbt-transfer"
SHOWN = ("torch", "torchvision", "optuna", "ray", "mlflow")
"""Packages that are listed if they are as required; the others only if they are not."""

Version = Callable[[str], str]


def check_versions(version: Version = metadata.version) -> Iterator[Diagnosis]:
    """Yields the version of Python, that of nbt, and those of its packages, compared with what nbt requires.

    Args:
        version: Returns the installed version of a distribution, or raises `PackageNotFoundError`.
    """
    yield Diagnosis("Python", OK, f"{platform.python_version()} on {platform.platform(terse=True)}")
    yield Diagnosis("nbt", OK, __version__)
    try:
        required = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or ()]
    except metadata.PackageNotFoundError:
        advice = f"install {DISTRIBUTION} with pip, so that its packages are known"
        yield Diagnosis("packages", WARNING, f"{DISTRIBUTION} is not installed", advice)
        return
    for requirement in required:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            diagnosis = _check(requirement, version)
            if diagnosis.status != OK or requirement.name in SHOWN:
                yield diagnosis


def _check(requirement: Requirement, version: Version) -> Diagnosis:
    advice = f"pip install '{requirement}'"
    try:
        found = version(requirement.name)
    except metadata.PackageNotFoundError:
        return Diagnosis(requirement.name, PROBLEM, f"not installed; nbt needs {requirement}", advice)
    if not requirement.specifier.contains(found, prereleases=True):
        return Diagnosis(requirement.name, PROBLEM, f"{found}; nbt needs {requirement}", advice)
    return Diagnosis(requirement.name, OK, found)
