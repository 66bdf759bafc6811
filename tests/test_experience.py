from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nbt import experience
from nbt.errors import UsageError
from nbt.fit import FitProfile
from nbt.search.recorded import RecordedTable

SMALL: dict[str, Any] = {"shots": 8, "epochs": 1}


def test_recording_keeps_every_epoch_with_test_accuracy_and_profile_and_goes_on(tmp_path: Path) -> None:
    path, seen = tmp_path / "digits.parquet", []
    table = experience.record("digits", trials=4, out=path, on_run=lambda run, done, n: seen.append((done, n)), **SMALL)
    assert seen == [(done, 5) for done in range(1, 6)], "four settings, the first with two seeds"
    assert [run.origin for run in table.runs][:2] == ["anchor: default recipe"] * 2
    assert table.header.watched > 0
    for run in table.runs:
        assert [result.epoch for result in run.curve] == [1]
        assert run.test_accuracy is not None
        assert run.curve[0].seconds > 0
    profile = FitProfile.from_dict(table.header.profile or {})
    assert profile.scalars["samples"] == table.header.facts["train_images"]
    assert str(tmp_path) not in str(table.header)

    longer = experience.record("digits", trials=5, out=path, **SMALL)
    assert longer.runs[:5] == RecordedTable.load(path).runs[:5] == table.runs
    assert len(longer.runs) == 6


def test_wrong_input_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.parquet"):
        experience.record("digits", trials=4, out=tmp_path / "table.csv", **SMALL)
    with pytest.raises(UsageError, match="trials: 0 is not 1 or more"):
        experience.record("digits", trials=0, out=tmp_path / "table.parquet", **SMALL)
    assert list(tmp_path.iterdir()) == []
