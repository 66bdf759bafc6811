"""`nbt fit`: what it passes on, what it prints, and one real run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nbt.cli import fit
from nbt.cli.app import run
from nbt.errors import UsageError
from nbt.fit import LAYER_COLUMNS
from tests.cli.fakes import FakeApi
from tests.fit_profiles import make_profile

FIT = ["fit", "--dataset", "digits"]
TWO = [*FIT, "--backbone", "conv3", "--backbone", "conv4"]


def two() -> list[Any]:
    return [make_profile(backbone="conv3", leep=-1.0, left_out={}), make_profile(own=(0.2, 0.3), other=(0.1, 0.1))]


def test_passes_its_options_on(fake_api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "w.pth").touch()
    words = "--weights none --weights w.pth --samples 50 --image-size 32 --classes 3 --shots 9 --seed 4 --source-data ."
    assert run([*TWO, *words.split(), "-q"]) == 0
    [(name, arguments, options)] = fake_api.calls
    assert (name, arguments) == ("fit", ("digits", [("conv3", "none"), ("conv4", "w.pth")]))
    del options["progress"]
    assert options == {
        "data_dir": None,
        "samples": 50,
        "image_size": 32,
        "classes": 3,
        "shots": 9,
        "seed": 4,
        "source_data": ".",
    }


@pytest.mark.parametrize(
    ("backbones", "weights", "pairs"),
    [
        ((), (), [(None, "default")]),
        (("a", "b"), (), [("a", "default"), ("b", "default")]),
        (("a", "b"), ("w",), [("a", "w"), ("b", "w")]),
        (("a", "b"), ("w", "v"), [("a", "w"), ("b", "v")]),
    ],
)
def test_weights_go_with_backbones_in_order(backbones: Any, weights: Any, pairs: Any) -> None:
    assert fit.pair_backbones_with_weights(backbones, weights) == pairs


def test_any_other_count_is_refused() -> None:
    with pytest.raises(UsageError, match="--weights is given 3 times for 2 --backbone"):
        fit.pair_backbones_with_weights(("a", "b"), ("u", "v", "w"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*TWO, *["--weights", "none"] * 3], "--weights is given 3 times for 2 --backbone"),
        ([*FIT, "--backbone", "conv3", "--backbone", "mobilnet_v2"], "mobilenet_v2"),
        ([*FIT, "--weights", "nowhere.pth"], "nowhere.pth"),
        ([*FIT, "--samples", "0"], "--samples: 0"),
        ([*FIT, "--plot", "a.pdf"], "--plot a.pdf"),
        ([*FIT, "--plot", "no/a.png"], "there is no folder no"),
        ([*FIT, "--source-data", "nowhere"], "--source-data nowhere: no such folder"),
        ([*FIT, "--image-size", "3"], "--image-size 3"),
        ([*FIT, "--recommend", "--experience", "nowhere"], "--experience nowhere: no such folder"),
        ([*FIT, "--recommend", "--space", "nonbinary"], "non_binary"),
        ([*FIT, "--space", "binary"], "--space is an option of --recommend; add that, or leave this out"),
        ([*FIT, "--experience", "."], "--experience is an option of --recommend"),
        (["fit"], "missing --dataset"),
    ],
)
def test_wrong_input_is_named_before_anything_runs(
    words: list[str], said: str, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert (captured.out, fake_api.calls) == ("", [])


def test_one_profile_is_one_document(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*FIT, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == make_profile().to_dict()
    assert document.keys() >= {"scalars", "layers", "facts", "left_out"}
    assert document["layers"][0].keys() == set(LAYER_COLUMNS)


def test_several_profiles_are_one_document(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fake_api.results["fit"] = two()
    assert run([*TWO, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"profiles": [profile.to_dict() for profile in two()]}


def test_people_get_a_table_meanings_curves_and_words(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fake_api.results["fit"] = two()
    assert run([*TWO, "--plot", "p.svg", "-q"]) == 0
    text = capsys.readouterr().out
    for part in (
        "cub: 20 classes, 1200 training images, 1000 of them measured at 96 px",
        "ridge probe, %",
        "60.0±1.5",
        "higher is better",
        "LEEP of mobilenet_v2: the weights came without a classifier",
        "conv3: ridge probe by unit",
        "<- knee",
        "suggests transferring all units",
        "conv3 has the highest ridge probe accuracy",
        "Uncertainty: ± is one binomial standard error",
        "plot: p.svg",
    ):
        assert part in text
    assert Path("p.svg").stat().st_size > 1000
    assert "\x1b" not in text


def test_a_wide_table_is_cut_into_parts() -> None:
    rows = [{"backbone": "a" * 10, "one": "1", "two": "22", "three": "333"}]
    assert fit.split_columns(rows, 80) == [rows]
    parts = fit.split_columns(rows, 18)
    assert [list(part[0]) for part in parts] == [["backbone", "one"], ["backbone", "two"], ["backbone", "three"]]
    assert [name for part in fit.split_columns(rows, 1) for name in part[0] if name != "backbone"] == [
        "one",
        "two",
        "three",
    ]


def test_the_real_thing(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*FIT, "--backbone", "conv3(width=8)", "--weights", "none", "--shots", "12"]
    assert run([*words, "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["scalars"]["classes"] == 5
    assert [row["unit"] for row in document["layers"]] == ["block1", "block2", "block3"]
    assert "measuring how conv3(width=8) fits" in captured.err
    assert run([*words, "--samples", "4"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --samples: 4 images cannot show 5 classes; give 5 or more")


class TestRecommend:
    def test_says_settings_and_why(self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
        assert run([*FIT, "--recommend", "--space", "binary", "--epochs", "7", "--experience", ".", "-q"]) == 0
        name, arguments, options = fake_api.calls[-1]
        assert name == "recommend" and arguments == (fake_api.results["fit"][0],)
        assert options == {"space": "binary", "epochs": 7, "experience": "."}
        text = " ".join(capsys.readouterr().out.split())
        assert "suggested settings, before any training" in text and "frozen_depth: 0.5" in text
        assert "enough steps small batches" in text and "no recorded tasks: the rules alone" in text

    def test_json_has_them_beside_the_profile(self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
        fake_api.results["fit"] = two()
        assert run([*TWO, "--recommend", "--json"]) == 0
        documents = json.loads(capsys.readouterr().out)["profiles"]
        assert [one["recommended"]["frozen_depth"] for one in documents] == [0.5, 0.5]
        assert documents[0]["guide"]["sources"][0]["name"] == "enough steps"

    def test_is_not_asked_for_by_default(self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
        assert run([*FIT, "--json"]) == 0
        assert "recommended" not in json.loads(capsys.readouterr().out)
        assert [name for name, _, _ in fake_api.calls] == ["fit"]
