from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from nbt.errors import NbtError, UsageError
from nbt.training.results import EpochResult
from nbt.tuning.experience.recorded_table import RecordedTable, describe_dimensions
from nbt.tuning.experience.study_tables import is_output_folder, merge_tables, table_from_study, write_tables
from nbt.tuning.space.space import Space
from nbt.tuning.storage.records import StudyRecord
from tests.fit_profiles import profile_dict
from tests.sample_study import DEFAULT, EPOCHS, config, curve, diverged_curve, sample_study, trial
from tests.tuning.benchmark.tables import header, make_table

SPACE = Space.load("non_binary")
FULL_LENGTH = [0, 1, 2, 3, 7, 10, 12, 14, 17]
PATHS = ("/home/ada/birds", "/home/ada/nets/w0.pth", "/home/ada/data")


def study(name: str = "birds", *, without: tuple[int, ...] = (8,), **changes: Any) -> StudyRecord:
    """Returns a finished study without trial 8, whose settings the space cannot express."""
    sample = sample_study()
    options = {key: changes.pop(key) for key in ("trials", "profile", "dataset_summary") if key in changes}
    trials = options.get("trials", tuple(trial for trial in sample.trials if trial.number not in without))
    return dataclasses.replace(
        sample, config=config(name=name, **changes), trials=trials, profile=options.get("profile", profile_dict())
    )


def study_with_paths(**changes: Any) -> StudyRecord:
    dataset, weights, data_dir = PATHS
    profile = {**profile_dict(), "facts": {**profile_dict()["facts"], "dataset": dataset, "weights": weights}}
    return study(dataset=dataset, weights=weights, data_dir=data_dir, profile=profile, **changes)


def values(result: EpochResult) -> dict[str, float]:
    return {name: -1.0 if value is None else value for name, value in result.to_dict().items()}


class TestTable:
    def test_every_full_length_trial_becomes_a_run(self, tmp_path: Path) -> None:
        record = study()
        table_from_study(record, SPACE).save(tmp_path / "t.parquet")
        table = RecordedTable.load(tmp_path / "t.parquet")
        trials = {trial.number: trial for trial in record.trials}
        assert [run.settings for run in table.runs] == [trials[number].settings for number in FULL_LENGTH]
        assert [(run.setting, run.seed) for run in table.runs] == [(i, 0) for i in range(len(FULL_LENGTH))]
        for run, number in zip(table.runs, FULL_LENGTH, strict=True):
            assert run.origin == "study: birds"
            assert run.setup_seconds == pytest.approx(0.03)
            assert run.diverged == trials[number].diverged
            assert run.val_accuracy == pytest.approx(trials[number].val_accuracy, abs=1e-6)
            assert len(run.curve) == len(trials[number].curve)
            for epoch, expected in zip(run.curve, trials[number].curve, strict=True):
                assert values(epoch) == pytest.approx(values(expected), rel=1e-6)
                assert epoch.watched_accuracy is None

    def test_diverged_trials_are_included_and_other_short_trials_are_not(self) -> None:
        record = study(
            trials=(
                trial(0, curve=diverged_curve()),
                trial(1, curve=curve(0.5)),
                trial(2, curve=curve(0.5, epochs=4)),
                trial(3, "pruned", curve=curve(0.5, epochs=4)),
                trial(10, "failed", curve=curve(0.5)),
                trial(5, "running", curve=curve(0.5)),
            )
        )
        runs = table_from_study(record, SPACE).runs
        assert [(run.diverged, len(run.curve)) for run in runs] == [(True, 2), (False, EPOCHS)]

    def test_complete_trials_of_other_lengths_are_included(self) -> None:
        short = DEFAULT.replace(epochs=5)
        record = study(
            trials=(
                trial(0, curve=curve(0.5)),
                trial(1, settings=short, curve=curve(0.4, epochs=5)),
                trial(2, settings=short.replace(body_lr=0.02), curve=curve(0.6, epochs=4)),
            )
        )
        runs = table_from_study(record, SPACE).runs
        assert [(run.settings.epochs, len(run.curve)) for run in runs] == [(EPOCHS, EPOCHS), (5, 5)]

    def test_the_header_describes_the_study(self) -> None:
        table_header = table_from_study(study(shots=9), SPACE).header
        stored = config()
        for name in ("dataset", "backbone", "weights", "data_hash", "weights_hash", "image_size", "epochs", "seed"):
            assert getattr(table_header, name) == getattr(stored, name)
        assert (table_header.classes, table_header.shots, table_header.watched) == (None, 9, 0)
        assert table_header.facts["validation_images"] == 299
        assert table_header.dimensions == describe_dimensions(SPACE)
        assert table_header.profile is not None
        assert table_header.profile["scalars"] == profile_dict()["scalars"]
        assert table_from_study(study(profile=None), SPACE).header.profile is None

    def test_the_table_contains_no_absolute_paths(self, tmp_path: Path) -> None:
        table_from_study(study_with_paths(), SPACE).save(tmp_path / "t.parquet")
        assert b"/home" not in (tmp_path / "t.parquet").read_bytes()
        table_header = RecordedTable.load(tmp_path / "t.parquet").header
        assert (table_header.dataset, table_header.weights) == ("birds", "w0.pth")
        assert table_header.profile is not None
        assert (table_header.profile["facts"]["dataset"], table_header.profile["facts"]["weights"]) == (
            "birds",
            "w0.pth",
        )

    def test_a_study_without_a_full_length_trial_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"study birds: no trial is complete yet.*--budget"):
            table_from_study(study(trials=(trial(3, "pruned", curve=curve(0.5, epochs=2)),)), SPACE)

    def test_a_trial_that_the_space_cannot_express_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"space non_binary cannot express trial 8 \(layer_lr_shape.*--space"):
            table_from_study(study(without=(), space="/home/ada/wide.yaml"), SPACE)
        two_rates = trial(0, settings=DEFAULT.replace(body_lr=0.5), curve=curve(0.6))
        with pytest.raises(
            UsageError, match=r"space binary cannot express trial 0 \(.* does not vary body_lr as these"
        ):
            table_from_study(study(trials=(two_rates,)), Space.load("binary"))

    def test_a_study_from_before_a_dimension_was_added_is_converted(self) -> None:
        table = table_from_study(study(space_hash="older"), SPACE)
        table.check_space(SPACE)


class TestMerge:
    def test_equal_settings_of_two_studies_are_repetitions(self) -> None:
        other = study("again", trials=(trial(0, settings=DEFAULT, curve=curve(0.6, seed=50)),))
        runs = merge_tables([table_from_study(record, SPACE) for record in (study(), other)]).runs
        assert len(runs) == len(FULL_LENGTH) + 1
        assert [(run.setting, run.seed, run.origin) for run in runs[:3]] == [
            (0, 0, "study: birds"),
            (0, 1, "study: again"),
            (1, 0, "study: birds"),
        ]

    def test_equal_runs_are_included_once(self) -> None:
        slower = [
            dataclasses.replace(trial, curve=tuple(dataclasses.replace(e, seconds=9.0) for e in trial.curve))
            for trial in study().trials
        ]
        tables = [table_from_study(record, SPACE) for record in (study(), study("birds-2", trials=tuple(slower)))]
        assert merge_tables(tables).runs == tables[0].runs

    def test_the_last_header_and_the_last_profile_are_kept(self) -> None:
        facts = [{"validation_images": n} for n in (10, 20)]
        tables = [make_table(4, seed=0, facts=facts[i], profile=[{"logme": 1}, None][i], watched=0) for i in (0, 1)]
        tables[1] = dataclasses.replace(tables[1], header=dataclasses.replace(tables[1].header, seed=0))
        merged = merge_tables(tables).header
        assert (merged.facts, merged.profile) == (facts[1], {"logme": 1})

    def test_the_error_for_different_tasks_names_all_differences(self) -> None:
        other = table_from_study(study("fish", image_size=64, shots=5, data_hash="other", weights_hash="w"), SPACE)
        with pytest.raises(UsageError) as caught:
            merge_tables([table_from_study(study(), SPACE), other])
        assert str(caught.value) == (
            "study birds and study fish belong to different tasks: dataset cub with different images, labels or split; "
            "weights default with different values; image size 96 and 64; shots not given and 5"
        )

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"dataset": "cars", "data_hash": "x"}, "dataset cub and cars"),
            ({"backbone": "conv4"}, r"backbone mobilenet_v2\(width_mult=0.35\) and conv4"),
            ({"seed": 3}, "seed 0 and 3"),
            ({"classes": 7}, "classes not given and 7"),
        ],
    )
    def test_each_difference_is_named(self, changes: dict[str, Any], message: str) -> None:
        tables = [table_from_study(record, SPACE) for record in (study(), study("b", **changes))]
        with pytest.raises(UsageError, match=message):
            merge_tables(tables)

    def test_trials_of_another_length_are_another_task(self) -> None:
        short = study("b", epochs=2, trials=(trial(0, settings=DEFAULT.replace(epochs=2), curve=curve(0.5, epochs=2)),))
        with pytest.raises(UsageError, match="epochs 12 and 2"):
            merge_tables([table_from_study(record, SPACE) for record in (study(), short)])

    def test_a_renamed_folder_is_the_same_task(self) -> None:
        tables = [table_from_study(record, SPACE) for record in (study(), study("b", dataset="/data/my-birds"))]
        assert merge_tables(tables).header.dataset == "my-birds"


class TestWriteTables:
    def test_files_and_folders_are_distinguished(self, tmp_path: Path) -> None:
        (tmp_path / "odd.parquet").mkdir()
        (tmp_path / "v1.2").mkdir()
        assert not is_output_folder(tmp_path / "t.parquet")
        for folder in ("new", "a/b", "odd.parquet", "v1.2"):
            assert is_output_folder(tmp_path / folder)

    @pytest.mark.parametrize("name", ["t.csv", "file"])
    def test_other_files_are_refused(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match=r"give a folder for one table per task, or a file TABLE.parquet"):
            is_output_folder(tmp_path / name)

    def test_a_folder_gets_one_table_per_task(self, tmp_path: Path) -> None:
        studies = study(), study("again"), study("fish", dataset="/x/fish", data_hash="f")
        written = write_tables([table_from_study(record, SPACE) for record in studies], tmp_path / "a" / "b", SPACE)
        assert sorted(written) == sorted((tmp_path / "a" / "b").iterdir())
        assert [path.name.rsplit("-", 1)[0] for path in written] == [
            "cub-mobilenet_v2-width_mult-0.35",
            "fish-mobilenet_v2-width_mult-0.35",
        ]
        assert [len(table.runs) for table in written.values()] == [len(FULL_LENGTH), len(FULL_LENGTH)], (
            "study again has the same runs"
        )

    def test_a_file_is_for_a_single_task(self, tmp_path: Path) -> None:
        tables = [table_from_study(record, SPACE) for record in (study(), study("fish", image_size=64))]
        with pytest.raises(UsageError, match=r"t.parquet: .*image size 96 and 64; give studies of a single task"):
            write_tables(tables, tmp_path / "t.parquet", SPACE)
        assert list(tmp_path.iterdir()) == []

    def test_new_runs_are_added_to_an_existing_table(self, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        first = table_from_study(study(), SPACE)
        write_tables([first], path, SPACE)
        before = path.read_bytes()
        write_tables([first], path, SPACE)
        assert path.read_bytes() == before
        other = study("later", trials=(trial(3, curve=curve(0.4, seed=9)), trial(23, curve=curve(0.5))))
        [grown] = write_tables([table_from_study(other, SPACE)], path, SPACE).values()
        assert len(grown.runs) == len(FULL_LENGTH) + 2
        assert [run.seed for run in grown.runs if run.settings == other.trials[0].settings] == [0, 1]

    def test_a_table_of_another_task_is_refused_and_kept(self, tmp_path: Path) -> None:
        path, table = tmp_path / "t.parquet", table_from_study(study(), SPACE)
        RecordedTable(dataclasses.replace(table.header, watched=400), ()).save(path)
        before = path.read_bytes()
        with pytest.raises(UsageError, match=r"number of test images 400 and 0; give another --out"):
            write_tables([table], path, SPACE)
        RecordedTable(dataclasses.replace(table.header, dimensions={"dropout": [0, 1, "linear"]}), ()).save(path)
        with pytest.raises(
            UsageError, match=r"dimension dropout, which space non_binary does not have; give another --out"
        ):
            write_tables([table], path, SPACE)
        path.write_bytes(before[:-9])
        with pytest.raises(UsageError, match=r"t.parquet: not a Parquet file, or damaged"):
            write_tables([table], path, SPACE)

    def test_a_folder_that_cannot_be_created_raises_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(NbtError, match=r"cannot write the table \((File exists|Not a directory)\)"):
            write_tables([table_from_study(study(), SPACE)], tmp_path / "file" / "t.parquet", SPACE)


def test_a_dimension_is_added_to_an_older_table(tmp_path: Path) -> None:
    path, table = tmp_path / "t.parquet", table_from_study(study(), SPACE)
    dimensions = {name: value for name, value in describe_dimensions(SPACE).items() if name != "mixup"}
    older = dataclasses.replace(table, header=dataclasses.replace(table.header, dimensions=dimensions))
    older.save(path)
    [grown] = write_tables([table], path, SPACE).values()
    assert grown.header.dimensions == describe_dimensions(SPACE)
    assert len(grown.runs) == len(table.runs)


def test_headers_of_recordings_and_of_studies_have_the_same_fields() -> None:
    fields = dataclasses.asdict(table_from_study(study(), SPACE).header)
    assert fields.keys() == dataclasses.asdict(header()).keys()
