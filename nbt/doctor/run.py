"""All checks of installation and machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from nbt.doctor.diagnosis import PROBLEM, Diagnosis
from nbt.doctor.folders import check_folders
from nbt.doctor.machine import check_gpus, check_machine
from nbt.doctor.services import check_services
from nbt.doctor.versions import check_versions
from nbt.doctor.weights import check_weights


def diagnose(
    *, storage: str | None = None, tracking_uri: str | None = None, ray_address: str | None = None, out: str = "reports"
) -> Iterator[Diagnosis]:
    """Yields the results of all checks, as soon as each is known.

    Args:
        storage: See `nbt.doctor.services.check_services`.
        tracking_uri: See `nbt.doctor.services.check_services`.
        ray_address: See `nbt.doctor.services.check_services`.
        out: Folder of the reports.
    """
    yield from _run("versions", check_versions)
    yield from _run("machine", check_machine)
    yield from _run("GPU", check_gpus)
    yield from _run("folders", lambda: check_folders(out))
    yield from _run("services", lambda: check_services(storage, tracking_uri, ray_address))
    yield from _run("weights", check_weights)


def _run(subject: str, check: Callable[[], Iterable[Diagnosis]]) -> Iterator[Diagnosis]:
    """Yields the results of a check; an error in it is a problem and ends no other check."""
    try:
        yield from check()
    except Exception as error:
        message = " ".join(f"the check failed with {type(error).__name__}: {error}".split())
        yield Diagnosis(subject, PROBLEM, message, "report this error to the authors of nbt")
