from __future__ import annotations

import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from nbt.data.contents import Contents
from nbt.errors import NbtError, UsageError
from nbt.search_config import SearchConfig
from nbt.training.results import EpochResult
from nbt.tuning.storage import codec, database
from nbt.tuning.storage.database import check_separate_databases, check_writable_storage
from nbt.tuning.storage.locks import LeaseLock
from nbt.tuning.storage.records import TrialRecord
from nbt.tuning.storage.studies import list_studies, open_study, read_study, resolve_storage, study_folder
from tests.fit_profiles import profile_dict
from tests.tuning.fakes import (
    DATASET,
    EPOCHS,
    DriverKilled,
    FakeEngine,
    config,
    copy_searched_study,
    kill,
    make_controller,
    open_fake_study,
    run_search,
    writer,
)


def run_sql(folder: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(folder / ".nbt" / "studies.db") as connection:
        connection.execute(statement, values)


def convert_to_version_0_1(folder: Path) -> None:
    """Converts the only study to the form of nbt 0.1: everything is in user attributes of Optuna's tables."""
    with sqlite3.connect(folder / ".nbt" / "studies.db") as connection:
        for number, attributes, trained in connection.execute("SELECT number, attributes, trained FROM nbt_trials"):
            [trial] = connection.execute("SELECT trial_id FROM trials WHERE number = ?", (number,)).fetchone()
            names = ("epoch", "train_loss", "val_loss", "val_accuracy", "seconds", "diverged")
            rows = connection.execute(
                f"SELECT {', '.join(names)} FROM nbt_epochs WHERE number = ? ORDER BY epoch", (number,)
            ).fetchall()
            curve = {name: [row[i] for row in rows] for i, name in enumerate(names)}
            curve["diverged"] = [bool(value) for value in curve["diverged"]]
            values = {**json.loads(attributes), "progress": {"trained": trained, "curve": curve}}
            connection.executemany(
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
                [(trial, key, json.dumps(value)) for key, value in values.items()],
            )
            connection.executemany(
                "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)"
                " VALUES (?, ?, ?, 'FINITE')",
                [(trial, row[0], row[3]) for row in rows],
            )
        for table in ("nbt_schema", "nbt_trials", "nbt_epochs"):
            connection.execute(f"DROP TABLE {table}")
    connection.close()


def without_metrics(trial: TrialRecord) -> TrialRecord:
    """Returns a trial without the metrics that version 0.1 did not measure."""
    return replace(trial, curve=tuple(replace(result, metrics={}) for result in trial.curve))


class TestUrl:
    def test_default_is_a_file_under_the_working_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert resolve_storage(None) == f"sqlite:///{tmp_path}/.nbt/studies.db"
        assert study_folder("a") == tmp_path / ".nbt" / "a"
        assert not (tmp_path / ".nbt").exists()

    def test_relative_files_become_absolute(self, tmp_path: Path) -> None:
        assert resolve_storage("sqlite:///a/b.db", tmp_path) == f"sqlite:///{tmp_path}/a/b.db"
        assert resolve_storage("sqlite:////c/d.db", tmp_path) == "sqlite:////c/d.db"

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("studies.db", "is not a database URL"),
            ("", "is not a database URL"),
            ("sqlite://", "need a database file"),
            ("sqlite:///:memory:", "need a database file"),
            ("sqlite:///file:x?uri=true", "need a database file"),
            ("sqlit:///a.db", "unknown database 'sqlit'; did you mean sqlite"),
            ("redis://localhost", "unknown database 'redis'"),
            ("sqlite+nodriver:///a.db", "unknown database"),
            ("postgresql://u:p@host:port/x", "is not a database URL"),
        ],
    )
    def test_invalid_urls(self, url: str, expected: str) -> None:
        with pytest.raises(UsageError, match=expected):
            resolve_storage(url)

    def test_a_missing_driver_is_named_and_the_password_is_not(self) -> None:
        with pytest.raises(UsageError) as caught:
            resolve_storage("oracle+oracledb://me:secret@host/db")
        assert 'pip install "oracledb"' in str(caught.value)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("url", "uri", "shared"),
        [
            ("sqlite:////a/b.db", "sqlite:////a/b.db", True),
            ("sqlite:////a/b.db", "sqlite:////a/c.db", False),
            (None, "http://127.0.0.1:5000", False),
        ],
    )
    def test_mlflow_needs_a_separate_database(self, url: str | None, uri: str, shared: bool) -> None:
        with pytest.raises(UsageError, match="cannot share the database") if shared else nullcontext():
            check_separate_databases(url, uri)

    def test_a_file_in_the_way_of_the_database_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        check_writable_storage(f"sqlite:///{tmp_path}/new/studies.db")
        assert not (tmp_path / "new").exists()
        with pytest.raises(UsageError, match=f"--storage {tmp_path}/file/studies.db: {tmp_path}/file is no folder"):
            check_writable_storage(f"sqlite:///{tmp_path}/file/studies.db")

    def test_mlflow_may_use_another_database_on_the_same_server(self) -> None:
        pytest.importorskip("psycopg", reason="the PostgreSQL driver is not installed")
        check_separate_databases("postgresql+psycopg://me@host/studies", "postgresql+psycopg://me@host/runs")
        with pytest.raises(UsageError, match="cannot share the database runs"):
            check_separate_databases("postgresql+psycopg://me:secret@host/runs", "postgresql://other@host/runs")


class TestOpen:
    def test_a_written_study_is_read(self, tmp_path: Path) -> None:
        with open_fake_study(tmp_path, "7", notes=["2 images left out"], shots=3) as store:
            record = store.record()
        assert record == read_study(resolve_storage(None, tmp_path), "fake")
        assert record.config == config(shots=3)
        assert (record.budget, record.pruner, record.epochs_budget) == ("7", "none", 7 * EPOCHS)
        assert record.dataset == DATASET
        assert record.notes == ("2 images left out",)
        assert record.created is not None and record.created.tzinfo is not None
        assert (record.trials, record.finals, record.test, record.importance) == ([], (), (), {})
        assert record.noise is None

    @pytest.mark.parametrize("attempt", range(3))
    def test_several_processes_may_open_a_new_database_at_the_same_time(self, attempt: int, tmp_path: Path) -> None:
        url, barrier = resolve_storage(None, tmp_path), threading.Barrier(6)

        def open_database(_: int) -> list[str]:
            barrier.wait()
            storage = database.connect(url)
            try:
                return [study.study_name for study in storage.get_all_studies()]
            finally:
                database.close(storage)

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(open_database, range(6))) == [[]] * 6

    def test_a_stored_fit_profile_is_read_unchanged(self, tmp_path: Path) -> None:
        with open_fake_study(tmp_path) as store:
            assert store.record().profile is None
            store.put_profile(profile_dict())
        with open_fake_study(tmp_path) as store:
            assert store.record().profile == profile_dict()
        assert read_study(resolve_storage(None, tmp_path), "fake").profile == profile_dict()

    def test_each_backbone_has_its_stored_fit_profile(self, tmp_path: Path) -> None:
        reference, other = profile_dict(), profile_dict(backbone="squeezenet1_0")
        with open_fake_study(tmp_path) as store:
            store.put_profile(reference)
            store.put_profile(other, "squeezenet1_0")
        record = read_study(resolve_storage(None, tmp_path), "fake")
        assert [record.profile_of(name) for name in ("", "squeezenet1_0", "vgg11")] == [reference, other, None]

    def test_the_profile_of_a_deep_backbone_fits_into_64_kb(self) -> None:
        deep = profile_dict(pretrained=[0.123456789012] * 100, random=[1 / 3] * 100)
        stored = codec.encode_profile(deep)
        assert len(json.dumps(stored)) < 2**16
        assert codec.decode_profile(json.loads(json.dumps(stored))) == deep

    @pytest.mark.parametrize("damage", [{"version": 99}, {"layers": 3}, {"scalars": None}])
    def test_a_damaged_fit_profile_is_ignored(
        self, damage: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with open_fake_study(tmp_path) as store:
            store.put(codec.PROFILE, {**codec.encode_profile(profile_dict()), **damage})
            assert store.record().profile is None
        assert "fit profile" in caplog.text

    def test_stored_options_of_earlier_versions_are_read_without_what_is_refused_now(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with open_fake_study(tmp_path) as store:
            store.put(codec.SEARCH, {"dataset": "digits", "budget": "3", "final_seeds": 1, "workers": 2})
            assert store.record().search == SearchConfig(dataset="digits", budget="3", workers=2)
        assert "final_seeds: 1 final run per recipe" in caplog.text

    def test_a_note_is_added_once(self, tmp_path: Path) -> None:
        with open_fake_study(tmp_path, notes=["a"]) as store:
            for note in ("b", "b"):
                store.add_note(note)
            assert store.record().notes == ("a", "b")

    def test_different_inputs_are_refused_and_change_nothing(self, tmp_path: Path) -> None:
        open_fake_study(tmp_path, "7").close()
        before = read_study(resolve_storage(None, tmp_path), "fake")
        with pytest.raises(UsageError, match="dataset digits before, dtd now"):
            open_study(
                resolve_storage(None, tmp_path),
                config(dataset="dtd", data_hash="d2"),
                budget="9",
                pruner="asha",
                dataset={},
            )
        assert read_study(resolve_storage(None, tmp_path), "fake") == before
        open_fake_study(tmp_path, "7").close()

    def test_changed_images_are_refused_with_what_changed(self, tmp_path: Path) -> None:
        images = Contents(("a", "b"), ("a/0", "b/0"), ("00", "01"), (0, 1), ("", ""), ("--resize crop",))
        changed = replace(images, hashes=("00", "02"))
        open_fake_study(tmp_path, content_hash="c1", contents=images.to_bytes()).close()
        with pytest.raises(UsageError, match=r"dataset digits has other images: 1 changed \(b/0\) \(give another"):
            open_fake_study(tmp_path, content_hash="c2", contents=changed.to_bytes())
        renamed = replace(images, names=("a/1", "b/1"))
        with open_fake_study(tmp_path, content_hash="c1", data_hash="d2", contents=renamed.to_bytes()) as store:
            assert store.record().config.data_hash == "d2"
        with pytest.raises(UsageError, match=r"1 changed \(b/1\)"):  # the new names are stored
            open_fake_study(tmp_path, content_hash="c2", contents=replace(renamed, hashes=("00", "02")).to_bytes())

    def test_a_study_without_content_hash_stores_the_new_one(self, tmp_path: Path) -> None:
        open_fake_study(tmp_path).close()
        images = Contents(("a", "b"), ("a/0", "b/0"), ("00", "01"), (0, 1), ("", ""))
        open_fake_study(tmp_path, content_hash="c1", contents=images.to_bytes()).close()
        assert read_study(resolve_storage(None, tmp_path), "fake").config.content_hash == "c1"
        with pytest.raises(UsageError, match=r"1 removed \(b/0\)"):
            open_fake_study(
                tmp_path,
                content_hash="c2",
                contents=Contents(("a", "b"), ("a/0",), ("00",), (0,), ("",)).to_bytes(),
            )

    def test_fresh_starts_a_study_with_a_new_name(self, tmp_path: Path) -> None:
        open_fake_study(tmp_path).close()
        for expected in ("fake-2", "fake-3"):
            with open_fake_study(tmp_path, fresh=True, data_hash="other") as store:
                assert store.config.name == expected
        with open_fake_study(tmp_path, fresh=True, name="new") as store:
            assert store.config.name == "new"

    def test_a_moved_dataset_is_the_same_study(self, tmp_path: Path) -> None:
        open_fake_study(tmp_path, data_dir="/old").close()
        with open_fake_study(tmp_path, data_dir="/new") as store:
            assert store.record().config.data_dir == "/new"

    def test_a_study_of_another_program_is_refused(self, tmp_path: Path) -> None:
        open_fake_study(tmp_path).close()
        storage = optuna.storages.RDBStorage(resolve_storage(None, tmp_path))
        theirs = optuna.create_study(study_name="theirs", storage=storage)
        theirs.tell(theirs.ask(), 1.0)
        with pytest.raises(UsageError, match="theirs in this storage was not created by nbt"):
            open_fake_study(tmp_path, name="theirs")
        with pytest.raises(UsageError, match="unknown study 'theirs'"):
            read_study(resolve_storage(None, tmp_path), "theirs")
        assert [summary.name for summary in list_studies(resolve_storage(None, tmp_path))] == ["fake"]

    def test_a_study_whose_creation_was_interrupted_can_be_opened(self, tmp_path: Path) -> None:
        open_fake_study(tmp_path, name="other").close()
        storage = optuna.storages.RDBStorage(resolve_storage(None, tmp_path))
        optuna.create_study(study_name="fake", storage=storage, direction="maximize")
        with open_fake_study(tmp_path) as store:
            assert store.record().config == config()

    def test_the_database_uses_wal_mode_and_leaves_no_wal_file(self, tmp_path: Path) -> None:
        with open_fake_study(tmp_path):
            pass
        with sqlite3.connect(tmp_path / ".nbt" / "studies.db") as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()
        assert not list((tmp_path / ".nbt").glob("*-wal"))

    def test_databases_on_a_server_use_a_lease(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from nbt.tuning.storage import studies as storage

        monkeypatch.setattr(storage, "sqlite_file", lambda url: None)
        with open_fake_study(tmp_path) as store:
            assert store.get(codec.LEASE)["host"]
            with pytest.raises(NbtError, match="is being searched already"):
                open_fake_study(tmp_path)
        with open_fake_study(tmp_path) as store:
            lock = writer(store)._lock
            assert isinstance(lock, LeaseLock)
            lock.heartbeat()
            store.put(codec.LEASE, {**store.get(codec.LEASE), "owner": "another"})
            lock.heartbeat()
            with pytest.raises(NbtError, match="is being searched already"):
                store.put("budget", "3")


class TestRead:
    def test_similar_names_are_suggested_for_an_unknown_study(self, tmp_path: Path) -> None:
        open_fake_study(tmp_path, name="cub-resnet18").close()
        with pytest.raises(UsageError, match="unknown study 'cub-resnet81'; did you mean cub-resnet18"):
            read_study(resolve_storage(None, tmp_path), "cub-resnet81")

    def test_reading_creates_no_database(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="there are no studies"):
            read_study(resolve_storage(None, tmp_path), "a")
        assert list_studies(resolve_storage(None, tmp_path)) == []
        assert list(tmp_path.iterdir()) == []

    def test_a_running_search_can_be_read(self, tmp_path: Path) -> None:
        with open_fake_study(tmp_path, "2") as store:
            controller = make_controller(store, "2")
            spec = controller.next_trial()
            assert spec is not None
            controller.on_epoch(spec, EpochResult(1, 2.0, 1.0, 0.25, 0.5))
            record = read_study(resolve_storage(None, tmp_path), "fake")
        assert record.counts()["running"] == 1
        assert record.trials[0].curve == (EpochResult(1, 2.0, 1.0, 0.25, 0.5),)
        assert record.epochs_spent == 1

    def test_list(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "3")
        open_fake_study(tmp_path, name="later").close()
        later, first = list_studies(resolve_storage(None, tmp_path))
        assert (later.name, first.name) == ("later", "fake")
        assert later.best is None
        assert first.trials == {"complete": 3, "pruned": 0, "failed": 0, "interrupted": 0, "running": 0}
        assert first.best == max(t.val_accuracy for t in read_study(resolve_storage(None, tmp_path), "fake").trials)
        assert (first.budget, first.backbone, first.finished) == ("3", "conv3", False)

    def test_noise_is_the_standard_error_at_the_best_accuracy(self, tmp_path: Path) -> None:
        record = copy_searched_study(tmp_path, "3")
        best = max(trial.val_accuracy or 0 for trial in record.trials)
        assert record.noise == pytest.approx((best * (1 - best) / 100) ** 0.5, rel=0.1)


class TestVersion01:
    """Studies of version 0.1, which has no tables of its own."""

    def test_it_is_read_unchanged_and_reading_writes_nothing(self, tmp_path: Path) -> None:
        record = copy_searched_study(tmp_path, "3")
        convert_to_version_0_1(tmp_path)
        file = tmp_path / ".nbt" / "studies.db"
        before = file.read_bytes()
        assert all(result.metrics for trial in record.trials for result in trial.curve)
        expected = replace(record, trials=[without_metrics(trial) for trial in record.trials])
        assert read_study(resolve_storage(None, tmp_path), "fake") == expected
        assert list_studies(resolve_storage(None, tmp_path))[0].trials == record.counts()
        assert file.read_bytes() == before

    def test_the_value_of_a_trial_is_that_of_its_last_epoch(self, tmp_path: Path) -> None:
        """Version 0.1 stored the value of the best epoch."""
        record = copy_searched_study(tmp_path, "3")
        convert_to_version_0_1(tmp_path)
        run_sql(tmp_path, "UPDATE trial_values SET value = 0.9999")
        values = [trial.curve[-1].val_accuracy for trial in record.trials]
        assert list_studies(resolve_storage(None, tmp_path))[0].best == max(value or 0.0 for value in values)
        with open_fake_study(tmp_path) as store:
            assert [trial.value for trial in store.trials()] == values
            assert [trial.val_accuracy for trial in store.record().trials] == values

    def test_it_is_continued_like_a_present_one(self, tmp_path: Path) -> None:
        for name in ("old", "new"):
            store = open_fake_study(tmp_path / name, "5")
            with pytest.raises(DriverKilled):
                FakeEngine(kill_after=2 * EPOCHS + 2).run(
                    make_controller(store, "5", pruner="asha", checkpoints=tmp_path / name / "checkpoints")
                )
            kill(store)
        convert_to_version_0_1(tmp_path / "old")
        old, new = (run_search(tmp_path / name, "5", pruner="asha") for name in ("old", "new"))
        assert [trial.end for trial in old.trials][:4] == ["complete", "complete", "interrupted", "complete"]
        for trial, other in zip(map(without_metrics, old.trials), map(without_metrics, new.trials), strict=True):
            assert (trial.settings, trial.curve, trial.end, trial.trained, dict(trial.facts)) == (
                other.settings,
                other.curve,
                other.end,
                other.trained,
                dict(other.facts),
            )
        assert read_study(resolve_storage(None, tmp_path / "old"), "fake") == old

    def test_an_empty_file_is_no_database_with_studies_and_stays_empty(self, tmp_path: Path) -> None:
        (tmp_path / "empty.db").touch()
        url = resolve_storage("sqlite:///empty.db", tmp_path)
        assert list_studies(url) == []
        with pytest.raises(UsageError, match=r"unknown study 'a'; there are no studies in .*empty.db"):
            read_study(url, "a")
        assert (tmp_path / "empty.db").stat().st_size == 0


class TestFaults:
    def test_a_locked_database(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "_BUSY_TIMEOUT_SECONDS", 0.01)
        with open_fake_study(tmp_path) as store:
            other = sqlite3.connect(tmp_path / ".nbt" / "studies.db", isolation_level=None)
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(NbtError, match=r"studies.db: database is locked: another program"):
                store.put("budget", "3")
            other.execute("COMMIT")
            other.close()
            store.put("budget", "3")
            assert store.get("budget") == "3"

    def test_a_temporary_lock_is_waited_for(self, tmp_path: Path) -> None:
        import threading

        with open_fake_study(tmp_path) as store:
            other = sqlite3.connect(tmp_path / ".nbt" / "studies.db", isolation_level=None, check_same_thread=False)
            other.execute("BEGIN IMMEDIATE")
            timer = threading.Timer(0.05, lambda: other.execute("COMMIT"))
            timer.start()
            store.put("budget", "3")
            timer.join()
            other.close()

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / ".nbt").write_text("a file where the folder should be")
        with pytest.raises(NbtError, match=r"studies.db: "):
            open_study(resolve_storage(None, tmp_path), config(), budget="1", pruner="none", dataset={})

    def test_a_read_only_database(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        open_fake_study(tmp_path).close()
        file = tmp_path / ".nbt" / "studies.db"
        monkeypatch.setattr(
            database,
            "_sqlite_connector",
            lambda _: lambda: sqlite3.connect(f"file:{file}?mode=ro", uri=True, check_same_thread=False),
        )
        with pytest.raises(NbtError, match="readonly"):
            open_fake_study(tmp_path, "11")

    def test_a_file_that_is_not_a_database(self, tmp_path: Path) -> None:
        (tmp_path / ".nbt").mkdir()
        (tmp_path / ".nbt" / "studies.db").write_bytes(b"something else entirely" * 100)
        for access in (lambda: open_fake_study(tmp_path), lambda: list_studies(resolve_storage(None, tmp_path))):
            with pytest.raises(UsageError, match="not a database: move the file away"):
                access()

    def test_a_truncated_database(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "3")
        file = tmp_path / ".nbt" / "studies.db"
        content = file.read_bytes()
        file.write_bytes(content[:8192] + bytes(len(content) - 8192))
        for access in (lambda: open_fake_study(tmp_path), lambda: read_study(resolve_storage(None, tmp_path), "fake")):
            with pytest.raises(UsageError, match="malformed: move the file away"):
                access()

    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / ".nbt" / "studies.db"
        copy_searched_study(tmp_path, "1")
        used = file.stat().st_size // 4096

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(file, check_same_thread=False)
            connection.execute(f"PRAGMA max_page_count = {used + 1}")
            return connection

        with monkeypatch.context() as patched:
            patched.setattr(database, "_sqlite_connector", lambda _: connect)
            with pytest.raises(NbtError, match=r"studies.db: database or disk is full"):
                run_search(tmp_path, "20")
        record = run_search(tmp_path, "20")
        assert record.counts()["complete"] == 20
        assert len({str(trial.settings) for trial in record.trials if trial.state == "complete"}) == 20

    def test_a_database_of_another_version_of_optuna(self, tmp_path: Path) -> None:
        open_fake_study(tmp_path).close()
        run_sql(tmp_path, "UPDATE alembic_version SET version_num = 'v1.3.0.a'")
        for access in (lambda: open_fake_study(tmp_path), lambda: list_studies(resolve_storage(None, tmp_path))):
            with pytest.raises(UsageError, match="optuna storage upgrade"):
                access()

    def test_a_database_of_a_later_version_of_nbt(self, tmp_path: Path) -> None:
        open_fake_study(tmp_path).close()
        run_sql(tmp_path, "INSERT INTO nbt_schema VALUES (99, '7.5.1')")
        url = resolve_storage(None, tmp_path)
        accesses = (lambda: open_fake_study(tmp_path), lambda: list_studies(url), lambda: read_study(url, "fake"))
        for access in accesses:
            with pytest.raises(UsageError, match=r"was written by nbt 7.5.1 with schema 99; .* install nbt 7.5.1"):
                access()

    def test_an_unreachable_server(self, tmp_path: Path) -> None:
        pytest.importorskip("psycopg", reason="the PostgreSQL driver is not installed")
        with pytest.raises(NbtError, match="refused"):
            open_fake_study(tmp_path, url="postgresql+psycopg://me:secret@127.0.0.1:1/x")

    def test_truncated_json(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "1")
        run_sql(tmp_path, "UPDATE nbt_trials SET attributes = '{\"epo'")
        with pytest.raises(UsageError, match=r"studies.db: a stored value is damaged"):
            read_study(resolve_storage(None, tmp_path), "fake")

    @pytest.mark.parametrize("damage", ["json_set(attributes, '$.settings.head_lr', -1)", "'3'", "'{\"settings\": 3}'"])
    def test_a_damaged_trial_is_ignored(self, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
        copy_searched_study(tmp_path, "2")
        run_sql(tmp_path, f"UPDATE nbt_trials SET attributes = {damage} WHERE number = 0")
        self.assert_first_trial_is_ignored(tmp_path, caplog)

    @pytest.mark.parametrize(
        ("key", "value"), [("settings", '{"head_lr": -1}'), ("progress", '{"curve": {}}'), ("settings", "3")]
    )
    def test_a_damaged_trial_of_version_0_1_is_ignored(
        self, tmp_path: Path, key: str, value: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        copy_searched_study(tmp_path, "2")
        convert_to_version_0_1(tmp_path)
        run_sql(tmp_path, "UPDATE trial_user_attributes SET value_json = ? WHERE key = ? AND trial_id = 1", value, key)
        self.assert_first_trial_is_ignored(tmp_path, caplog)

    @staticmethod
    def assert_first_trial_is_ignored(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        record = read_study(resolve_storage(None, folder), "fake")
        assert [trial.number for trial in record.trials] == [1]
        assert record.epochs_spent == 2 * EPOCHS
        assert "trial 0: its stored record is damaged" in caplog.text
        assert run_search(folder, "3").counts()["complete"] == 2

    def test_a_damaged_configuration(self, tmp_path: Path) -> None:
        open_fake_study(tmp_path).close()
        run_sql(tmp_path, "UPDATE study_user_attributes SET value_json = '{\"name\": 1}' WHERE key = 'config'")
        with pytest.raises(UsageError, match="study fake: its stored configuration is damaged"):
            open_fake_study(tmp_path)
        assert list_studies(resolve_storage(None, tmp_path)) == []

    @pytest.mark.parametrize("key", ["finals", "test", "dataset", "created", "notes"])
    def test_other_damaged_attributes_are_ignored(self, tmp_path: Path, key: str) -> None:
        copy_searched_study(tmp_path, "1")
        with open_fake_study(tmp_path, "1") as store:
            store.put(key, ["odd"] if key != "created" else "yesterday")
        record = read_study(resolve_storage(None, tmp_path), "fake")
        assert len(record.trials) == 1
        assert (record.finals, record.test) == ((), ())

    def test_a_database_that_fails_in_the_middle_of_a_search(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "_BUSY_TIMEOUT_SECONDS", 0.01)
        store = open_fake_study(tmp_path, "2")
        other = sqlite3.connect(tmp_path / ".nbt" / "studies.db", isolation_level=None)
        engine = FakeEngine()
        engine.simulate = lambda spec: other.execute("BEGIN EXCLUSIVE") and []  # type: ignore[assignment,return-value]
        with pytest.raises(NbtError, match="locked"):
            engine.run(make_controller(store, "2"))
        other.execute("COMMIT")
        other.close()
        kill(store)
        record = run_search(tmp_path, "2")
        assert record.counts() == {"complete": 2, "pruned": 0, "failed": 0, "interrupted": 1, "running": 0}


def test_a_store_can_be_closed_twice_and_after_a_kill(tmp_path: Path) -> None:
    store = open_fake_study(tmp_path, "1")
    with pytest.raises(DriverKilled):
        FakeEngine(kill_after=1).run(make_controller(store, "1"))
    store.close()
    store.close()
    assert read_study(resolve_storage(None, tmp_path), "fake").counts()["running"] == 1


@pytest.mark.slow
def test_fifty_studies_share_a_store_and_killed_ones_continue(tmp_path: Path) -> None:
    """Every fifth driver is killed in its second trial; its study continues without harm to the others."""
    for number in range(50):
        killed = number % 5 == 0
        store = open_fake_study(tmp_path, "3", name=f"study-{number}")
        controller = make_controller(store, "3", checkpoints=tmp_path / "checkpoints" / str(number))
        with pytest.raises(DriverKilled) if killed else nullcontext():
            FakeEngine(kill_after=EPOCHS + 2 if killed else None).run(controller)
        if killed:
            kill(store)
        else:
            controller.close()
            store.close()
    assert len(list_studies(resolve_storage(None, tmp_path))) == 50
    for number in range(0, 50, 5):
        with open_fake_study(tmp_path, "3", name=f"study-{number}") as store:
            controller = make_controller(store, "3", checkpoints=tmp_path / "checkpoints" / str(number))
            FakeEngine().run(controller)
            controller.close()
    summaries = {summary.name: summary for summary in list_studies(resolve_storage(None, tmp_path))}
    assert summaries.keys() == {f"study-{number}" for number in range(50)}
    for number in range(50):
        record = read_study(resolve_storage(None, tmp_path), f"study-{number}")
        assert record.counts()["complete"] == summaries[record.config.name].trials["complete"] == 3
        assert record.counts()["interrupted"] == (number % 5 == 0)
        assert record.epochs_spent == 3 * EPOCHS
