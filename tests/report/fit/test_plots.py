from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from nbt.errors import NbtError, UsageError
from nbt.report.fit.plots import check_plot_file, layer_curves, write_fit_plot
from tests.fit_profiles import make_profile

SVG = "{http://www.w3.org/2000/svg}"


def test_every_unit_has_a_tooltip_and_the_knee_is_marked() -> None:
    svg = layer_curves(make_profile())
    assert svg is not None
    page = ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    tips = [element.text for element in page.iter(f"{SVG}title")]
    assert len(tips) == 10
    assert "unit 5, features.4: 60.0 % ± 1.5, pretrained weights" in tips
    texts = {element.text for element in page.iter(f"{SVG}text")}
    assert {"pretrained weights", "random weights", "knee"} <= texts
    assert "var(--best)" in svg and "stroke-dasharray" in svg


def test_random_weights_are_not_called_pretrained() -> None:
    svg = layer_curves(make_profile(weights="none")) or ""
    assert "pretrained" not in svg and ">measured weights (random)<" in svg and ">other random weights<" in svg


def test_without_a_knee_there_is_no_mark() -> None:
    assert ">knee<" not in (layer_curves(make_profile(pretrained=(0.3, 0.3), random=(0.3, 0.3))) or "")


def test_profile_without_units_is_not_drawn() -> None:
    empty = make_profile()
    assert layer_curves(type(empty)(empty.scalars, empty.layers.iloc[:0], empty.facts)) is None


@pytest.mark.parametrize("name", ["a.png", "a.SVG"])
def test_plot_file_of_several_profiles_is_reproducible(name: str, tmp_path: Path) -> None:
    profiles = [make_profile(backbone="one"), make_profile(pretrained=(0.2, 0.3), random=(0.1, 0.1), backbone="$two$")]
    path = write_fit_plot(profiles, tmp_path / name)
    first = path.read_bytes()
    assert first.startswith(b"\x89PNG" if name == "a.png" else b"<?xml")
    assert write_fit_plot(profiles, path).read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == [name]
    if name == "a.SVG":
        assert b">one</text>" in first
        assert b">$two$</text>" in first


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.pdf", "PNG or SVG"), ("a", ".png or .svg"), ("no/a.png", "no folder"), ("d.png", "a folder")],
)
def test_invalid_plot_files_are_rejected(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.png").mkdir()
    with pytest.raises(UsageError, match=message):
        check_plot_file(tmp_path / name)


def test_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(NbtError, match="No space left"):
        write_fit_plot([make_profile()], tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []
