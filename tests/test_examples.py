"""Every public name has an example in its docstring, and the examples run.

They run in a folder with a model of version c8d5bce and images that it knows.
"""

from __future__ import annotations

import doctest
import shutil
from pathlib import Path

import pytest
import torch

import nbt

ARTIFACTS = Path(__file__).resolve().parent / "artifacts" / "c8d5bce"
NAMES = [name for name in nbt.__all__ if name != "__version__"]


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ARTIFACTS / "finished" / "report" / "model", tmp_path / "model")
    shutil.copytree(ARTIFACTS / "images", tmp_path / "labelled")
    (tmp_path / "photos").mkdir()
    shutil.copy(ARTIFACTS / "images" / "rings" / "03.png", tmp_path / "photos" / "a.png")
    shutil.copy(ARTIFACTS / "images" / "waves" / "05.png", tmp_path / "photos" / "b.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_docstring(name: str, working_folder: Path) -> None:
    value = getattr(nbt, name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    runner = doctest.DocTestRunner(optionflags=flags)
    # `exclude_empty` drops names without examples.
    found = doctest.DocTestFinder(exclude_empty=True).find(value, name, globs={"nbt": nbt, "torch": torch})
    for test in found:
        runner.run(test)
    assert runner.tries > 0, "no example"
    assert runner.failures == 0
