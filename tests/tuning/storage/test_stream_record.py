"""Records of streams: names, identity, and storage on the disk."""

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


def test_a_record_is_restored_from_json() -> None:
    record = make_stream()
    text = json.dumps(record.to_dict(), allow_nan=False)
    assert StreamRecord.from_dict(json.loads(text)) == record


@pytest.mark.parametrize("damage", [{"config": None}, {"result": {}}, {"started": "soon"}, {"images": None}])
def test_a_damaged_record_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(NbtError, match="not a stream"):
        StreamRecord.from_dict({**make_stream().to_dict(), **damage})


def test_a_stopped_stream_is_not_finished() -> None:
    record = make_stream()
    assert record.finished
    assert not replace(record, result=replace(record.result, scores=make_scores()[:2])).finished


def test_the_name_contains_the_main_options() -> None:
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
def test_other_options_are_hashed_into_the_name(changed: Any) -> None:
    assert changed.name.startswith(PLAIN + "-")
    assert len(changed.name) == len(PLAIN) + 9


def test_options_without_effect_on_the_results_do_not_change_the_name() -> None:
    assert with_settings(make_config(), memory_bytes=5).name == PLAIN
    assert with_settings(make_config(), memory_bytes=5).identity == make_config().identity
    assert make_config(data_dir="/elsewhere").name == PLAIN


def test_different_options_give_different_names() -> None:
    configs = [with_settings(make_config(), epochs=epochs) for epochs in (3, 4, 5)]
    configs += [make_config(shots=5), make_config(shots=5, data_hash="e" * 16), make_config(classes=5)]
    assert len({config.name for config in configs}) == len(configs)


def test_several_streams_have_a_common_name() -> None:
    configs = [make_config("dlcft"), make_config("joint")]
    assert stream_name(configs, [0]) == PLAIN.replace("dlcft", "dlcft-joint")
    assert stream_name(configs, [2, 3, 4]).endswith("-dlcft-joint-seeds2-4")
    changed = [make_config("dlcft"), with_settings(make_config("joint"), epochs=2)]
    assert stream_name(changed, [0]).startswith(stream_name(configs, [0]) + "-")


def test_long_names_keep_their_end() -> None:
    config = make_config(dataset="a" * 300, backbone="b" * 300)
    assert config.name == "a" * 60 + "-task-3-dlcft-seed0"


def test_a_record_is_written_read_and_removed(tmp_path: Path) -> None:
    record = make_stream()
    folder = StreamFolder(tmp_path / "s", record.config)
    assert folder.read() is None
    assert folder.mark == ""
    folder.write(record)
    folder.set_sync_marker("logged")
    (tmp_path / "s" / "checkpoint.pt").touch()
    (tmp_path / "s" / "checkpoint.pt.task").touch()
    assert folder.read() == record
    assert folder.mark == "logged"
    folder.forget()
    assert folder.read() is None
    assert list((tmp_path / "s").iterdir()) == []


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        (make_config(data_hash="e" * 16), "was run with different images, labels or split; use --fresh"),
        (
            make_config(weights_hash="x" * 16, image_size=32),
            "was run with different image size and weights; use --fresh",
        ),
    ],
)
def test_a_stored_stream_with_another_configuration_is_refused(requested: Any, message: str, tmp_path: Path) -> None:
    StreamFolder(tmp_path, make_config()).write(make_stream())
    with pytest.raises(UsageError) as caught:
        StreamFolder(tmp_path, requested).read()
    assert message in str(caught.value)
    assert "--fresh" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\xff"])
def test_the_error_of_a_damaged_file_names_the_remedy(text: str, tmp_path: Path) -> None:
    (tmp_path / "stream.json").write_text(text, encoding="latin-1")
    with pytest.raises(NbtError, match="use --fresh to start over"):
        StreamFolder(tmp_path, make_config()).read()


def test_only_one_process_runs_a_stream(tmp_path: Path) -> None:
    folder = StreamFolder(tmp_path, make_config())
    with (
        folder.held(),
        pytest.raises(NbtError, match="being run by another process"),
        StreamFolder(tmp_path, folder.config).held(),
    ):
        pass
    with folder.held():
        pass


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(NbtError, match="cannot store a stream there"),
        StreamFolder(tmp_path / "file", make_config()).held(),
    ):
        pass
    with pytest.raises(NbtError, match="cannot store the stream"):
        StreamFolder(tmp_path / "file", make_config()).write(make_stream())
