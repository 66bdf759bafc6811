from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from nbt.errors import UsageError
from nbt.settings.candidate import candidates_text
from nbt.task.options import check_candidates, check_task_options


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("name: mobilenet_v9", r"list\.yaml, line 3: unknown backbone 'mobilenet_v9'; did you mean mobilenet_v"),
        ("name: conv4(width=", r"list\.yaml, line 3: backbone 'conv4\(width=': write a name"),
        ("image_size: -4", r"list\.yaml, line 3: image_size -4: expected a whole number, 8 \.\.\. 1024"),
        ("image_size: 2000", r"list\.yaml, line 3: image_size 2000: expected"),
    ],
)
def test_wrong_values_of_a_list_name_file_and_line(wrong: str, message: str, tmp_path: Path) -> None:
    name = "" if "name" in wrong else "  name: conv3\n"
    file = tmp_path / "list.yaml"
    file.write_text(f"- conv3\n- weights: none\n  {wrong}\n{name}")
    with pytest.raises(UsageError, match=message):
        check_candidates(file)


def test_files_of_weights_may_be_missing_and_their_line_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, missing = tmp_path / "list.yaml", tmp_path / "missing.pth"
    file.write_text("- conv3\n- name: conv4\n  weights: missing.pth\n- {name: conv3, weights: list.yaml}\n")
    with caplog.at_level(logging.WARNING, logger="nbt"):
        found = check_candidates(file)
    assert [item.weights for item in found] == ["default", str(missing), str(file)]
    assert caplog.messages == [f"{file}, line 3: weights {missing}: no such file, so that conv4 will be left out"]
    assert "line " not in candidates_text(file), "places are for messages only"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"data_dir": ""}, "^--data-dir: expected DIR, got an empty text$"),
        ({"backbone": ""}, "^--backbone: expected NAME, got an empty text$"),
        ({"weights": ""}, r"^--weights: expected default\|none\|FILE, got an empty text$"),
        ({"source_data": " "}, r"^--source-data: expected FOLDER\|CSV, got an empty text$"),
    ],
)
def test_an_empty_text_is_not_the_default(option: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_task_options("digits", **option)
