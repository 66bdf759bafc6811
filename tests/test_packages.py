"""The packages that a release consists of: built from a clean tree, complete, and accepted by the package index."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
IN_SDIST = ("nbt/", "search_spaces/", "studies/", "tests/", "docs/", "reports/", ".ci/")
BESIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "mkdocs.yml", "pyproject.toml")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds both packages, the wheel from the sdist, into a new folder."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("packages")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder


def tracked_files() -> set[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a checkout")
    return {name for name in listed.stdout.splitlines() if (REPOSITORY / name).exists()}


@pytest.mark.slow
def test_the_sdist_has_every_file_of_the_checkout(built: Path) -> None:
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    expected = {name for name in tracked_files() if name.startswith(IN_SDIST) or name in BESIDE}
    assert expected - names == set()


@pytest.mark.slow
def test_the_wheel_has_the_package_the_spaces_and_the_recorded_tables(built: Path) -> None:
    [path] = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    expected = {
        name if name.startswith("nbt/") else f"nbt/{name}"
        for name in tracked_files()
        if name.startswith(("nbt/", "search_spaces/", "studies/recorded/"))
    }
    assert expected - names == set()
    assert not [name for name in names if name.startswith(("tests/", "nbt/tests/", "nbt/studies/results/"))]


@pytest.mark.slow
def test_the_package_index_accepts_them(built: Path) -> None:
    pytest.importorskip("twine")
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, sorted(built.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
