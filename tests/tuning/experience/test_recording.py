from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbt.errors import NbtError, UsageError
from nbt.training.results import TrialOutcome, TrialSpec
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable
from nbt.tuning.experience.recording import Journal, Recording, plan_runs
from nbt.tuning.space.sampling import sample_many_params, sample_params
from tests.tuning.benchmark.tables import LENGTH, SPACE, header, make_curve, make_run
from tests.tuning.fakes import FakeEngine


class TestPlan:
    def test_baseline_recipes_come_first_and_every_tenth_setting_runs_twice(self) -> None:
        runs = plan_runs(SPACE, 25, epochs=LENGTH, seed=0)
        assert [run.origin for run in runs if run.seed == 0][:4] == [
            "anchor: default recipe",
            "anchor: linear probe",
            "anchor: L2-SP",
            "random",
        ]
        assert [run.setting for run in runs if run.seed == 1] == [0, 10, 20]
        assert len({run.key for run in runs}) == 28

    def test_a_longer_recording_continues_a_shorter_one(self) -> None:
        short, long = (plan_runs(SPACE, n, epochs=LENGTH, seed=3) for n in (12, 30))
        assert long[: len(short)] == short

    def test_seeds_give_different_settings(self) -> None:
        first, second = (plan_runs(SPACE, 8, epochs=LENGTH, seed=seed)[-1].settings for seed in (0, 1))
        assert first != second

    @pytest.mark.parametrize("at_once", [False, True])
    def test_samples_cover_the_whole_range(self, at_once: bool) -> None:
        rng = np.random.default_rng(0)
        params = sample_many_params(SPACE, rng, 400) if at_once else [sample_params(SPACE, rng) for _ in range(400)]
        assert len(params) == 400
        rates = [np.log10(float(sample["head_lr"])) for sample in params]
        assert (min(rates), max(rates)) == pytest.approx((-3, 0), abs=0.05)
        assert np.mean(rates) == pytest.approx(-1.5, abs=0.15)
        assert {sample["ema"] for sample in params} == {0, 0.9, 0.98, 0.995}
        assert {SPACE.settings(sample, LENGTH).transfer_depth == 1 for sample in params} == {True, False}, (
            "the overshoot"
        )


def record(path: Path, n: int, engine: FakeEngine | None = None, progress: list[Any] | None = None) -> Recording:
    planned = plan_runs(SPACE, n, epochs=LENGTH, seed=0)
    source = Recording(
        planned, Journal(path, header()), None if progress is None else lambda *arguments: progress.append(arguments)
    )
    (engine or make_engine()).run(source)
    return source


def make_engine(**options: Any) -> FakeEngine:
    return FakeEngine(simulate=lambda spec: list(make_curve(0.6, 0.5)), **options)


def fail_at(*keys: str) -> Any:
    def outcome(spec: TrialSpec, curve: Any) -> TrialOutcome | None:
        return TrialOutcome(curve=curve, error="RuntimeError: boom") if spec.key in keys else None

    return outcome


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "table.parquet"


class TestRecording:
    def test_all_runs_are_recorded_to_full_length(self, path: Path) -> None:
        progress: list[tuple[RecordedRun, int, int]] = []
        record(path, 12, progress=progress)
        assert [(done, total) for _, done, total in progress] == [(i, 14) for i in range(1, 15)]
        journal = Journal(path, header())
        table = journal.close(header(profile={"scalars": {"logme": 1.0}}))
        assert len(table.runs) == 14 and all(len(run.curve) == LENGTH for run in table.runs)
        assert RecordedTable.load(path).header.profile == {"scalars": {"logme": 1.0}}
        assert [entry.name for entry in path.parent.iterdir()] == ["table.parquet"]

    def test_an_interrupted_recording_is_resumed(self, path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            record(path, 10, make_engine(interrupt_after=3 * LENGTH + 2))
        engine = make_engine()
        record(path, 10, engine)
        assert engine.specs[0].key == "setting-0002-seed-0", "setting 0 ran twice, then 1"
        assert len(engine.specs) == 11 - 3
        assert len(Journal(path, header()).runs) == 11

    def test_a_finished_table_is_extended(self, path: Path) -> None:
        record(path, 5)
        Journal(path, header()).close(header())
        engine = make_engine()
        record(path, 7, engine)
        assert [spec.key for spec in engine.specs] == ["setting-0005-seed-0", "setting-0006-seed-0"]
        assert len(Journal(path, header()).close(header()).runs) == 8

    def test_progress_of_a_shorter_recording_counts_only_its_own_runs(self, path: Path) -> None:
        record(path, 12, make_engine(outcome=fail_at("setting-0002-seed-0", "setting-0004-seed-0")))
        progress: list[tuple[RecordedRun, int, int]] = []
        record(path, 5, progress=progress)
        assert [(run.setting, done, total) for run, done, total in progress] == [(2, 5, 6), (4, 6, 6)]

    def test_seeds_differ_between_runs_of_a_setting_and_never_between_sessions(self, path: Path) -> None:
        engines = make_engine(), make_engine()
        for folder, engine in zip("ab", engines, strict=True):
            record(path.parent / folder / "t.parquet", 3, engine)
        seeds = [[spec.seed for spec in engine.specs] for engine in engines]
        assert seeds[0] == seeds[1]
        assert len(set(seeds[0])) == len(seeds[0]) == 4

    def test_a_failed_run_is_skipped_and_tried_again(self, path: Path) -> None:
        source = record(path, 4, make_engine(outcome=fail_at("setting-0002-seed-0")))
        assert source.failed == {"setting-0002-seed-0": "RuntimeError: boom"}
        engine = make_engine()
        record(path, 4, engine)
        assert [spec.key for spec in engine.specs] == ["setting-0002-seed-0"]

    def test_three_failures_in_a_row_equal_but_for_numbers_end_the_recording(self, path: Path) -> None:
        def outcome(spec: TrialSpec, curve: Any) -> TrialOutcome | None:
            return TrialOutcome(curve=curve, error=f"out of memory: {spec.seed} MiB")

        with pytest.raises(NbtError, match="out of memory"):
            record(path, 9, make_engine(outcome=outcome))

    def test_three_equal_failures_in_a_row_end_the_recording(self, path: Path) -> None:
        failing = [f"setting-{i:04d}-seed-0" for i in (2, 3, 4)]
        with pytest.raises(NbtError, match="boom"):
            record(path, 9, make_engine(outcome=fail_at(*failing)))
        assert len(Journal(path, header()).runs) == 3


class TestJournal:
    def test_an_incomplete_line_loses_only_its_run(self, path: Path) -> None:
        record(path, 4)
        file = path.with_name("table.parquet.journal")
        file.write_bytes(file.read_bytes()[:-40])
        assert sorted(Journal(path, header()).runs) == [(0, 0), (0, 1), (1, 0), (2, 0)]
        record(path, 4)
        assert len(Journal(path, header()).runs) == 5

    def test_an_incomplete_first_line_is_ignored(self, path: Path) -> None:
        path.parent.mkdir()
        path.with_name("table.parquet.journal").write_text('{"dataset": "bi')
        record(path, 3)
        assert len(Journal(path, header()).runs) == 4

    def test_another_recording_is_refused_with_the_differences(self, path: Path) -> None:
        record(path, 2)
        with pytest.raises(UsageError, match="recorded with different backbone, image_size; give another --out"):
            Journal(path, header(backbone="conv4", image_size=32))
        Journal(path, header()).close(header())
        with pytest.raises(UsageError, match=r"table.parquet: recorded with different data_hash"):
            Journal(path, header(data_hash="other"))

    def test_add_writes_the_run_to_the_disk(self, path: Path) -> None:
        journal = Journal(path, header())
        journal.add(make_run(plan_runs(SPACE, 1, epochs=LENGTH, seed=0)[0]))
        lines = path.with_name("table.parquet.journal").read_text().splitlines()
        assert json.loads(lines[0])["dataset"] == "birds"
        assert json.loads(lines[1])["setting"] == 0
