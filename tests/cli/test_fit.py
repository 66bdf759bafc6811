"""`nbt fit`: arguments, output, and one real run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from nbt.cli import fit
from nbt.cli.app import run
from nbt.cli.display.fit_summary import split_columns
from nbt.errors import UsageError
from nbt.fit import LAYER_COLUMNS, OPTIONAL_MEASURES
from tests.cli.fakes import FakeApi
from tests.fit_profiles import make_profile

FIT = ["fit", "--dataset", "digits"]
TWO = [*FIT, "--backbone", "conv3", "--backbone", "conv4"]


def two_profiles() -> list[Any]:
    return [
        make_profile(backbone="conv3", leep=-1.0, left_out={}),
        make_profile(pretrained=(0.2, 0.3), random=(0.1, 0.1)),
    ]


def test_passes_its_options_on(fake_api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "w.pth").touch()
    args = "--weights none --weights w.pth --samples 50 --image-size 32 --classes 3 --shots 9 --seed 4 --source-data ."
    assert run([*TWO, *args.split(), "-q"]) == 0
    [(name, arguments, options)] = fake_api.calls
    assert (name, arguments) == ("fit", ("digits", [("conv3", "none"), ("conv4", "w.pth")]))
    del options["progress"]
    assert options == {
        "tracking_uri": f"sqlite:///{tmp_path}/.nbt/mlflow.db",
        "data_dir": None,
        "samples": 50,
        "all_measures": False,
        "image_size": 32,
        "resize": "crop",
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
def test_weights_are_paired_with_backbones_in_order(backbones: Any, weights: Any, pairs: Any) -> None:
    assert fit.pair_backbones_with_weights(backbones, weights) == pairs


def test_another_number_of_weights_is_rejected() -> None:
    with pytest.raises(UsageError, match="--weights is given 3 times for 2 --backbone"):
        fit.pair_backbones_with_weights(("a", "b"), ("u", "v", "w"))


@pytest.mark.parametrize(
    ("args", "message"),
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
        ([*FIT, "--space", "binary"], "--space is an option of --recommend; add --recommend, or leave it out"),
        ([*FIT, "--experience", "."], "--experience is an option of --recommend"),
        (["fit"], "missing --dataset"),
    ],
)
def test_wrong_input_is_reported_before_anything_runs(
    args: list[str], message: str, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(args) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert (captured.out, fake_api.calls) == ("", [])


def test_one_profile_is_one_document(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*FIT, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == make_profile().to_dict()
    assert document.keys() >= {"scalars", "layers", "facts", "left_out"}
    assert document["layers"][0].keys() == set(LAYER_COLUMNS)


def test_several_profiles_are_one_document(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fake_api.results["fit"] = two_profiles()
    assert run([*TWO, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"profiles": [profile.to_dict() for profile in two_profiles()]}


def test_prints_table_definitions_charts_and_conclusions(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fake_api.results["fit"] = two_profiles()
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


def test_measures_without_skill_have_a_second_table(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fake_api.results["fit"] = two_profiles()
    assert run([*TWO, "--all-measures", "-q"]) == 0
    assert fake_api.calls[-1][2]["all_measures"] is True
    first, second = capsys.readouterr().out.split("Measures without demonstrated skill\n")
    assert "ridge probe, %" in first and "LogME" in first and "TransRate" not in first
    table = second.split("Left out")[0]
    assert "TransRate" in table and "3200" in table and "given the outputs of the source classifier" in table


def test_a_sentence_says_how_to_get_all_measures(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fake_api.results["fit"] = [make_profile().without_optional_measures()]
    assert run([*FIT, "-q"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "nbt fit --all-measures also computes N-LEEP, LEEP" in text
    assert "Left out" not in text and "without demonstrated skill" not in text


def test_a_wide_table_is_split_into_parts() -> None:
    rows = [{"backbone": "a" * 10, "one": "1", "two": "22", "three": "333"}]
    assert split_columns(rows, 80) == [rows]
    parts = split_columns(rows, 18)
    assert [list(part[0]) for part in parts] == [["backbone", "one"], ["backbone", "two"], ["backbone", "three"]]
    assert [name for part in split_columns(rows, 1) for name in part[0] if name != "backbone"] == [
        "one",
        "two",
        "three",
    ]


def test_a_real_profile(capsys: pytest.CaptureFixture[str]) -> None:
    args = [*FIT, "--backbone", "conv3(width=8)", "--weights", "none", "--shots", "12"]
    assert run([*args, "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["scalars"]["classes"] == 5
    assert [row["unit"] for row in document["layers"]] == ["block1", "block2", "block3"]
    assert "measuring how conv3(width=8) fits" in captured.err
    assert not set(OPTIONAL_MEASURES) & (document["scalars"].keys() | document["left_out"].keys())
    assert run([*args, "--all-measures", "--json"]) == 0
    complete = json.loads(capsys.readouterr().out)
    assert complete["scalars"].keys() - document["scalars"].keys() == {"nleep", "transrate", "h_score"}
    assert complete["left_out"].keys() - document["left_out"].keys() == {"leep", "nce"}
    assert run([*args, "--samples", "4"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --samples: 4 images cannot show 5 classes; give 5 or more")


class TestRecommend:
    def test_prints_the_settings_and_their_basis(self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
        assert run([*FIT, "--recommend", "--space", "binary", "--epochs", "7", "--experience", ".", "-q"]) == 0
        name, arguments, options = fake_api.calls[-1]
        assert name == "recommend" and arguments == (fake_api.results["fit"][0],)
        assert options == {"space": "binary", "epochs": 7, "experience": "."}
        printed = capsys.readouterr().out
        assert printed.splitlines()[0].endswith(": recommended settings, before any training")
        assert printed.index("frozen_depth: 0.5") < printed.index("\n\ncub: 20 classes") < printed.index("by unit")
        text = " ".join(printed.split())
        assert "Reasons enough steps batch_size is at most 32; here 32 (few steps)" in text
        assert "Suggestions that the settings do not follow moderate head rate a low rate; here 0.5 (a test)" in text
        assert "No prior and no recorded task judges stall: neutral values." in text
        assert "based on the priors alone, without recorded tables" in text

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("tuned default 1", "The tuned default 1, the recipe that was best on other datasets;"),
            ("training from scratch", "Training from scratch, because no pretrained unit has clearly better features"),
        ],
    )
    def test_a_recipe_with_a_name_is_explained(
        self, name: str, reason: str, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fake_api.results["recommend"] = dataclasses.replace(fake_api.results["recommend"], name=name)
        assert run([*FIT, "--recommend", "-q"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert reason in text and "Suggestions that the settings follow" in text
        assert "neutral values" not in text

    def test_json_contains_them_with_the_profile(self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
        fake_api.results["fit"] = two_profiles()
        assert run([*TWO, "--recommend", "--json"]) == 0
        documents = json.loads(capsys.readouterr().out)["profiles"]
        assert [document["recommended"]["frozen_depth"] for document in documents] == [0.5, 0.5]
        assert documents[0]["guide"]["sources"][0]["name"] == "enough steps"

    def test_there_is_no_recommendation_by_default(self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
        assert run([*FIT, "--json"]) == 0
        assert "recommended" not in json.loads(capsys.readouterr().out)
        assert [name for name, _, _ in fake_api.calls] == ["fit"]
