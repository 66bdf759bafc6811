from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nbt import api
from nbt.errors import UsageError
from nbt.fit import FitProfile
from nbt.tuning.experience.recorded_table import RecordedTable
from tests.tuning.fakes import FakeEngine, copy_searched_study, make_controller, open_fake_study

PROBE = """
import sys
from nbt import api
result = api.record_studies(out="mine")
assert result.tables
print([name for name in ("torch", "torchvision", "ray", "mlflow", "matplotlib") if name in sys.modules])
"""

SMALL: dict[str, Any] = {"shots": 8, "epochs": 1}


def test_a_recording_has_test_accuracies_and_profile_and_can_be_extended(tmp_path: Path) -> None:
    path, seen = tmp_path / "digits.parquet", []
    table = api.record("digits", trials=4, out=path, on_run=lambda run, done, n: seen.append((done, n)), **SMALL)
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

    longer = api.record("digits", trials=5, out=path, **SMALL)
    assert longer.runs[:5] == RecordedTable.load(path).runs[:5] == table.runs
    assert len(longer.runs) == 6


def test_wrong_input_is_rejected_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.parquet"):
        api.record("digits", trials=4, out=tmp_path / "table.csv", **SMALL)
    with pytest.raises(UsageError, match="trials: 0 is not 1 or more"):
        api.record("digits", trials=0, out=tmp_path / "table.parquet", **SMALL)
    assert list(tmp_path.iterdir()) == []


class TestRecordStudies:
    def test_a_table_contains_the_full_length_trials_of_the_storage(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        record = copy_searched_study(tmp_path, "8")
        result = api.record_studies(out="mine")
        [(path, table)] = result.tables.items()
        assert (path.parent, result.left_out) == (Path("mine"), {})
        assert table.runs == RecordedTable.load(path).runs
        full = [trial for trial in record.trials if trial.state == "complete"]
        assert [run.settings for run in table.runs] == [trial.settings for trial in full]
        assert [run.val_accuracy for run in table.runs] == pytest.approx([trial.val_accuracy for trial in full])

    def test_it_grows_with_the_study(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        copy_searched_study(tmp_path, "4")
        [before] = api.record_studies(["fake"], out="t.parquet").tables.values()
        with open_fake_study(tmp_path, "6") as store:
            FakeEngine().run(make_controller(store, "6"))
        [after] = api.record_studies(["fake", "fake"], out="t.parquet").tables.values()
        assert (len(before.runs), len(after.runs)) == (4, 6)
        assert after.runs[:4] == before.runs

    def test_it_needs_no_torch(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "4")
        done = subprocess.run(
            [sys.executable, "-c", PROBE],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert (done.stdout, done.stderr) == ("[]\n", "")
