"""`nbt cache`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from nbt.cache import CacheUse
from nbt.cli.app import run


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))
    for kind, name, dataset, age in (("images", "a", "birds", 10 * 86400), ("copies", "b", "cats", 60)):
        path = tmp_path / "cache" / kind / f"{name}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"dataset": dataset}))
        os.utime(path, (time.time() - age, time.time() - age))
    return tmp_path / "cache"


def listed(capsys: pytest.CaptureFixture[str], *options: str) -> list[tuple[str, str]]:
    assert run(["cache", "--json", *options]) == 0
    return [(entry["kind"], entry["dataset"]) for entry in json.loads(capsys.readouterr().out)["entries"]]


def test_entries_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys) == [("copies", "cats"), ("images", "birds")]
    assert listed(capsys, "--older-than", "1d") == [("images", "birds")]
    assert listed(capsys, "--kind", "fit") == []
    assert run(["cache"]) == 0
    text = capsys.readouterr().out
    assert "birds" in text and "10 days ago" in text and "2 entries" in text and "NBT_CACHE_LIMIT 20.0 GB" in text


def test_clear_removes_what_is_listed_but_nothing_in_use(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys, "--clear", "--older-than", "1w") == [("images", "birds")]
    assert listed(capsys) == [("copies", "cats")]
    use = CacheUse("copies", "b")
    assert run(["cache", "--clear"]) == 0
    assert "0 entries, 0 B removed, 1 in use" in capsys.readouterr().out
    del use
    assert listed(capsys, "--clear") == [("copies", "cats")]
    assert listed(capsys) == []


def test_what_cannot_be_removed_gives_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(entry: object) -> bool:
        raise PermissionError("no")

    monkeypatch.setattr("nbt.cli.cache.remove_entry", refuse)
    assert run(["cache", "--clear"]) == 1
    assert "2 entries cannot be removed: no" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--older-than", "soon"], "--older-than: 'soon' is no duration; expected one such as 12h, 30d or 8w"),
        (["--kind", "image"], "did you mean images"),
    ],
)
def test_wrong_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_wrong_limit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NBT_CACHE_LIMIT", "lots")
    assert run(["cache"]) == 2
    assert "NBT_CACHE_LIMIT=lots: expected a size" in capsys.readouterr().err


def test_a_file_in_the_place_of_the_cache_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "file"))
    assert run(["cache"]) == 1
    assert capsys.readouterr().err == (
        f"error: the cache cannot be written ({tmp_path / 'file'} is no folder); set NBT_CACHE to a writable folder\n"
    )
