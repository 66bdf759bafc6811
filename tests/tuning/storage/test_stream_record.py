"""Streams as plain data: names, identity, and what is kept on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbt.errors import NbtError, UsageError
from nbt.tuning.storage.stream_folder import StreamFolder
from nbt.tuning.storage.stream_record import StreamRecord, stream_name
from tests.sample_stream import make_config, make_scores, make_stream, with_settings

PLAIN = "birds-mobilenet_v2-width_mult-0.35-task-3-dlcft-seed0"


def test_a_record_is_json_and_back() -> None:
    record = make_stream()
    text = json.dumps(record.to_dict(), allow_nan=False)
    assert StreamRecord.from_dict(json.loads(text)) == record


@pytest.mark.parametrize("damage", [{"config": None}, {"result": {}}, {"started": "soon"}, {"images": None}])
def test_a_damaged_record_is_named(damage: dict[str, Any]) -> None:
    with pytest.raises(NbtError, match="not a stream"):
        StreamRecord.from_dict({**make_stream().to_dict(), **damage})


def test_a_stopped_stream_is_not_finished() -> None:
    record = make_stream()
    assert record.finished
    assert not replace(record, result=replace(record.result, scores=make_scores()[:2])).finished


def test_the_name_says_what_was_asked_for() -> None:
    assert make_config().name == PLAIN
    assert make_config(seed=4).name == PLAIN.replace("seed0", "seed4")
    assert make_config("ewc", scenario="class").name == PLAIN.replace("task-3-dlcft", "class-3-ewc")
    assert make_config(dataset="/somewhere/my birds").name.startswith("my-birds-mobilenet")


@pytest.mark.parametrize(
    "changed",
    [
        with_settings(make_config(), epochs=3),
        with_settings(make_config(), factors="merge"),
        make_config(weights="other.pth"),
        make_config(classes=6),
        make_config(shots=5),
        make_config(own_image_size=True),
    ],
)
def test_what_was_chosen_else_is_a_hash(changed: Any) -> None:
    assert changed.name.startswith(PLAIN + "-")
    assert len(changed.name) == len(PLAIN) + 9


def test_what_has_no_effect_changes_no_name() -> None:
    assert with_settings(make_config(), memory_bytes=5).name == PLAIN
    assert with_settings(make_config(), memory_bytes=5).identity == make_config().identity
    assert make_config(data_dir="/elsewhere").name == PLAIN


def test_other_choices_have_other_names() -> None:
    configs = [with_settings(make_config(), epochs=epochs) for epochs in (3, 4, 5)]
    configs += [make_config(shots=5), make_config(shots=5, data_hash="e" * 16), make_config(classes=5)]
    assert len({config.name for config in configs}) == len(configs)


def test_several_have_one_name() -> None:
    configs = [make_config("dlcft"), make_config("joint")]
    assert stream_name(configs, [0]) == PLAIN.replace("dlcft", "dlcft-joint")
    assert stream_name(configs, [2, 3, 4]).endswith("-dlcft-joint-seeds2-4")
    other = [make_config("dlcft"), with_settings(make_config("joint"), epochs=2)]
    assert stream_name(other, [0]).startswith(stream_name(configs, [0]) + "-")


def test_long_names_end_in_what_tells_them_apart() -> None:
    config = make_config(dataset="a" * 300, backbone="b" * 300)
    assert config.name == "a" * 60 + "-task-3-dlcft-seed0"


def test_kept_is_read_back_and_forgotten(tmp_path: Path) -> None:
    record = make_stream()
    kept = StreamFolder(tmp_path / "s", record.config)
    assert kept.read() is None
    assert kept.mark == ""
    kept.write(record)
    kept.set_sync_marker("told")
    (tmp_path / "s" / "checkpoint.pt").touch()
    (tmp_path / "s" / "checkpoint.pt.task").touch()
    assert kept.read() == record
    assert kept.mark == "told"
    kept.forget()
    assert kept.read() is None
    assert list((tmp_path / "s").iterdir()) == []


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (make_config(data_hash="e" * 16), "was run with different images, labels or split; use --fresh"),
        (
            make_config(weights_hash="x" * 16, image_size=32),
            "was run with different image size and weights; use --fresh",
        ),
    ],
)
def test_a_stream_of_something_else_is_not_taken(now: Any, said: str, tmp_path: Path) -> None:
    StreamFolder(tmp_path, make_config()).write(make_stream())
    with pytest.raises(UsageError) as caught:
        StreamFolder(tmp_path, now).read()
    assert said in str(caught.value)
    assert "--fresh" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\xff"])
def test_a_torn_file_says_what_to_do(text: str, tmp_path: Path) -> None:
    (tmp_path / "stream.json").write_text(text, encoding="latin-1")
    with pytest.raises(NbtError, match="use --fresh to start over"):
        StreamFolder(tmp_path, make_config()).read()


def test_one_process_runs_a_stream(tmp_path: Path) -> None:
    kept = StreamFolder(tmp_path, make_config())
    with (
        kept.held(),
        pytest.raises(NbtError, match="being run by another process"),
        StreamFolder(tmp_path, kept.config).held(),
    ):
        pass
    with kept.held():
        pass


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(NbtError, match="cannot store a stream there"),
        StreamFolder(tmp_path / "file", make_config()).held(),
    ):
        pass
    with pytest.raises(NbtError, match="cannot store the stream"):
        StreamFolder(tmp_path / "file", make_config()).write(make_stream())
