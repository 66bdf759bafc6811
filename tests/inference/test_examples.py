"""The examples in the docstrings run, in a folder with a model of version c8d5bce and images that it knows."""

from __future__ import annotations

import doctest
import importlib
import shutil
from pathlib import Path

import pytest
import torch

import nbt

ARTIFACTS = Path(__file__).resolve().parent.parent / "artifacts" / "c8d5bce"


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


@pytest.mark.parametrize("name", ["nbt.inference.model", "nbt.api._predict", "nbt.api._evaluate"])
def test_examples_of_docstrings(name: str, working_folder: Path) -> None:
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    results = doctest.testmod(module, extraglobs={"nbt": nbt, "torch": torch}, optionflags=flags)
    assert results.attempted > 0
    assert results.failed == 0
