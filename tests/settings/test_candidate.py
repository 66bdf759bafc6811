from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nbt.errors import UsageError
from nbt.settings.candidate import BACKBONE_LISTS, Candidate, candidates_text, parse_candidates


def test_names_pairs_mappings_and_texts_mean_the_same() -> None:
    expected = (Candidate(name="resnet18"), Candidate(name="vgg11", weights="none", image_size=64, licence="MIT"))
    listed = ["resnet18", {"name": "vgg11", "weights": "none", "image_size": 64, "licence": "MIT"}]
    assert parse_candidates(listed) == expected
    assert parse_candidates(candidates_text(listed)) == expected
    assert parse_candidates("[resnet18, {name: vgg11, weights: none, image_size: 64, licence: MIT}]") == expected
    assert parse_candidates([("resnet18", "none")]) == (Candidate(name="resnet18", weights="none"),)


def test_weights_in_a_file_are_relative_to_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text("- {name: resnet18, weights: files/w.pth}\n- {name: vgg11, weights: default}\n")
    first, second = parse_candidates(file)
    assert (first.weights, second.weights) == (str(tmp_path / "files/w.pth"), "default")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "at least one backbone"),
        ({"name": "resnet18"}, "expected a list or a file"),
        ([1], "backbones, item 1: expected a backbone"),
        (["resnet18", {"weights": "none"}], "backbones, item 2: no name"),
        (["resnet18", "resnet18"], "backbones, item 2: resnet18 is given twice"),
        ([{"name": "resnet18", "image_size": "64"}], "image_size: expected a whole number, got '64'"),
        ([{"name": "resnet18", "text": 3}], "text: expected one line of text, got 3"),
        (
            "no-such-file.yaml",
            "--backbones no-such-file.yaml: cannot be read as a file .*, or a single backbone as --backbone",
        ),
    ],
)
def test_wrong_lists_are_refused(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_candidates(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "- name: resnet18\n- name: vgg11\n  weight: none\n",
            "list.yaml, line 3: unknown key 'weight'; did you mean weights",
        ),
        ("- name: resnet18\n- image_size: 64\n", "list.yaml, line 2: no name"),
        (
            "- name: resnet18\n- name: vgg11\n  image_size: big\n",
            "list.yaml, line 3: image_size: expected a whole number",
        ),
        ("- {name: resnet18}\n-\n  weights: w.pth\n  name: 3\n", "list.yaml, line 4: name: expected one line of text"),
        ("- name: vgg11\n- name: resnet18\n  weights: ''\n", "list.yaml, line 3: weights: expected default, none or a"),
        ("- resnet18\n- 7\n", "list.yaml, line 2: expected a backbone"),
        ("name: resnet18\n", "list.yaml: expected a list"),
        ("", "list.yaml: is empty; expected a list"),
        ("[]\n", "list.yaml: expected at least one backbone"),
        ("- name: [\n", "list.yaml, line 2: not valid YAML"),
    ],
)
def test_errors_name_the_line_of_the_file(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        parse_candidates(file)


def test_further_checks_name_the_line_of_the_key_or_the_item(tmp_path: Path) -> None:
    def check(size: int | None) -> None:
        if size is not None:
            raise UsageError(f"size {size}")

    file = tmp_path / "list.yaml"
    file.write_text("- name: resnet18\n- name: vgg11\n  weights: none\n  image_size: 7\n")
    with pytest.raises(UsageError, match=r"list\.yaml, line 4: size 7$"):
        parse_candidates(file, {"image_size": check})
    for value in (
        [{"name": "resnet18"}, {"name": "vgg11", "image_size": 7}],
        "[resnet18, {name: vgg11, image_size: 7}]",
    ):
        with pytest.raises(UsageError, match=r"^backbones, item 2: size 7$"):
            parse_candidates(value, {"image_size": check})


# Smallest and largest number of parameters without the head, in millions.
SIZES = {"small": (2, 12), "medium": (20, 30), "large": (85, 95)}
SHIPPED = [(name, candidate) for name in BACKBONE_LISTS for candidate in parse_candidates(name)]


@pytest.mark.parametrize(("size", "candidate"), SHIPPED, ids=lambda value: getattr(value, "name", value))
def test_the_models_of_the_shipped_lists_exist_with_weights_of_their_size_and_licence(
    size: str, candidate: Candidate
) -> None:
    from nbt.models.backbone import build_on_meta_device, torchvision_default_weights
    from nbt.models.backbone_spec import TIMM_PREFIX, parse_backbone

    assert candidate.weights == "default" and candidate.image_size
    if candidate.name.startswith(TIMM_PREFIX):
        timm = pytest.importorskip("timm", reason="needs timm, which is an extra")
        config = timm.get_pretrained_cfg(candidate.name.removeprefix(TIMM_PREFIX))
        assert config.has_weights and config.license == candidate.licence
    else:
        assert torchvision_default_weights(parse_backbone(candidate.name)) is not None
        assert candidate.licence == "BSD-3-Clause"
    _, parts = build_on_meta_device(parse_backbone(candidate.name), candidate.image_size)
    millions = sum(parameter.numel() for _, unit in parts.units for parameter in unit.parameters()) / 1e6
    low, high = SIZES[size]
    assert low <= millions <= high
    assert f" {millions:.1f} million parameters, " in candidate.text


def test_a_file_with_the_name_of_a_shipped_list_is_read_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small").write_text("- conv3\n- conv4\n")
    assert [candidate.name for candidate in parse_candidates("./small")] == ["conv3", "conv4"]
    assert len(parse_candidates("small")) > 2
