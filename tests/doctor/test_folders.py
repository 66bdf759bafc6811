from __future__ import annotations

from pathlib import Path

import pytest

from nbt.doctor.diagnosis import Diagnosis
from nbt.doctor.folders import check_folders, folder_size
from nbt.doctor.sizes import GIB, MIB


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))


def by_subject(out: str | Path = "reports", free: int = 50 * GIB) -> dict[str, Diagnosis]:
    return {result.subject: result for result in check_folders(out, lambda path: free)}


def test_folders_are_not_created(tmp_path: Path) -> None:
    results = by_subject()
    assert {result.status for result in results.values()} == {"ok"}
    assert list(tmp_path.iterdir()) == []
    assert results["reports"].message == f"{tmp_path}/reports, 50.0 GiB free"


def test_the_size_of_the_cache(tmp_path: Path) -> None:
    (tmp_path / "cache" / "deep").mkdir(parents=True)
    (tmp_path / "cache" / "deep" / "file").write_bytes(bytes(3 * MIB))
    (tmp_path / "cache" / "link").symlink_to("deep/file")
    assert folder_size(tmp_path / "cache") == 3 * MIB
    assert by_subject()["cache"].message == f"{tmp_path}/cache, 3 MiB used, 50.0 GiB free"


def test_a_wrong_limit_of_the_cache_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBT_CACHE_LIMIT", "abc")
    assert (by_subject()["cache"].status, "NBT_CACHE_LIMIT=abc" in by_subject()["cache"].message) == ("problem", True)


def test_a_folder_that_cannot_be_written_is_a_problem() -> None:
    result = by_subject(out="/proc/reports")["reports"]  # nobody can write there, not even root
    assert result.status == "problem"
    assert result.message.startswith("/proc/reports cannot be written (")
    assert result.advice == "give another folder with --out"


def test_a_file_in_the_way_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "file" / "cache"))
    assert by_subject()["cache"].status == "problem"


@pytest.mark.parametrize(("free", "status"), [(5 * GIB, "ok"), (GIB, "warning"), (10 * MIB, "problem"), (0, "problem")])
def test_little_disk(free: int, status: str) -> None:
    results = by_subject(free=free)
    assert {result.status for result in results.values()} == {status}
    assert all(bool(result.advice) == (status != "ok") for result in results.values())
