from __future__ import annotations

import dataclasses
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.errors import UsageError
from nbt.tuning.storage.study_names import check_same_study, check_study_name, default_study_name, unused_name
from tests.tuning.fakes import config


class TestContentHash:
    def test_changed_bytes_are_refused_and_named(self) -> None:
        with pytest.raises(UsageError, match="different bytes in its image files than before"):
            check_same_study(config(content_hash="before"), config(content_hash="now"))

    @pytest.mark.parametrize(("stored", "requested"), [(None, "now"), ("before", None), ("same", "same")])
    def test_a_study_without_content_hash_is_resumed(self, stored: str | None, requested: str | None) -> None:
        check_same_study(config(content_hash=stored), config(content_hash=requested))


class TestNames:
    @pytest.mark.parametrize(
        ("dataset", "backbone", "space", "expected"),
        [
            ("cub", "mobilenet_v2(width_mult=0.35)", "non_binary", "cub-mobilenet_v2-width_mult-0.35-non_binary"),
            ("/data/my flowers/", "resnet18", "/tmp/wide.yaml", "my-flowers-resnet18-wide"),
            ("/data/list.csv", "conv3", "binary", "list-conv3-binary"),
            ("/data/é", "conv3", "binary", "conv3-binary"),
        ],
    )
    def test_default_names(self, dataset: str, backbone: str, space: str, expected: str) -> None:
        assert default_study_name(dataset, backbone, space) == expected

    @given(st.text(), st.text(), st.text())
    def test_default_names_are_valid(self, dataset: str, backbone: str, space: str) -> None:
        name = default_study_name(dataset, backbone, space)
        assert check_study_name(name) == name
        assert set(name) <= set(string.ascii_letters + string.digits + "._-")

    @pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "../up", "a b", "x" * 121, "é", "a\n"])
    def test_names_that_cannot_be_folders_are_refused(self, name: str) -> None:
        with pytest.raises(UsageError, match="study name"):
            check_study_name(name)

    def test_unused_name_is_the_first_unused_one(self) -> None:
        assert unused_name("a", []) == "a"
        assert unused_name("a", ["a"]) == "a-2"
        assert unused_name("a", ["a", "a-2", "a-4", "b"]) == "a-3"


class TestSameStudy:
    def test_names_and_paths_may_change(self) -> None:
        stored = config()
        moved = dataclasses.replace(stored, dataset="elsewhere", data_dir="there", weights="w.pth", space="s.yaml")
        check_same_study(stored, moved)

    def test_each_difference_is_named_with_the_remedy(self) -> None:
        stored = config()
        requested = dataclasses.replace(stored, dataset="dtd", data_hash="d2", epochs=9, classes=5)
        with pytest.raises(UsageError) as caught:
            check_same_study(stored, requested)
        message = str(caught.value)
        assert "dataset digits before, dtd now" in message
        assert "epochs 6 before, 9 now" in message
        assert "classes not given before, 5 now" in message
        assert "--study NAME" in message
        assert "--fresh" in message
        assert "backbone" not in message

    def test_changed_content_with_the_same_name_is_refused(self) -> None:
        with pytest.raises(UsageError, match="search space non_binary has different dimensions than before"):
            check_same_study(config(), config(space_hash="s2"))

    @pytest.mark.parametrize(
        "change",
        [
            {"data_hash": "x"},
            {"backbone": "x"},
            {"weights_hash": "x"},
            {"space_hash": "x"},
            {"image_size": 64},
            {"epochs": 1},
            {"seed": 1},
            {"classes": 3},
            {"shots": 3},
        ],
    )
    def test_all_inputs_are_compared(self, change: dict) -> None:
        with pytest.raises(UsageError):
            check_same_study(config(), config(**change))
