from __future__ import annotations

import sys
from pathlib import Path

import pytest

import nbt
from tests.cli.fakes import FakeApi


@pytest.fixture(autouse=True)
def separate_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fake_api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setitem(sys.modules, "nbt.api", fake)
    monkeypatch.setattr(nbt, "api", fake, raising=False)
    return fake
