from __future__ import annotations

from importlib import metadata

import pytest

from nbt.doctor.diagnosis import Diagnosis
from nbt.doctor.versions import SHOWN, check_versions


def by_subject(version: object = metadata.version) -> dict[str, Diagnosis]:
    return {result.subject: result for result in check_versions(version)}  # type: ignore[arg-type]


def test_installed_packages_are_as_required() -> None:
    results = by_subject()
    assert {"Python", "nbt", *SHOWN} == results.keys(), "only the main packages are listed"
    assert {result.status for result in results.values()} == {"ok"}
    assert results["optuna"].message == metadata.version("optuna")


def test_missing_and_old_packages_are_problems_with_the_command_to_run() -> None:
    def version(name: str) -> str:
        if name == "safetensors":
            raise metadata.PackageNotFoundError(name)
        return "4.9" if name == "optuna" else metadata.version(name)

    results = by_subject(version)
    assert results["safetensors"].status == results["optuna"].status == "problem"
    assert results["safetensors"].message.startswith("not installed; nbt needs safetensors>=")
    assert results["optuna"].message.startswith("4.9; nbt needs optuna")
    assert results["optuna"].advice.startswith("pip install 'optuna")


def test_without_metadata_there_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert by_subject()["packages"].status == "warning"
