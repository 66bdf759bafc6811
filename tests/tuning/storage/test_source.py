import logging
from dataclasses import replace

import pytest

from nbt.tuning.storage import codec
from nbt.tuning.storage.reader import study_record
from nbt.tuning.storage.source import SourceRecord
from nbt.tuning.storage.study_store import StudyStore
from nbt.tuning.storage.trial_tables import in_memory_study
from tests.sample_study import config

SOURCE = SourceRecord(images=140, classes=7, matching="names", references={"": 0.81, "resnet18": 0.5})


def test_a_stored_source_is_read_back() -> None:
    store = StudyStore(in_memory_study("s"), config(name="s"))
    store.put(codec.CONFIG, store.config.to_dict())
    store.put_source(None)
    assert store.record().source is None
    store.put_source(SOURCE)
    assert store.record().source == SOURCE


def test_a_damaged_source_is_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    attributes = {codec.CONFIG: config(name="s").to_dict(), codec.SOURCE: {"images": 3}}
    with caplog.at_level(logging.WARNING, "nbt"):
        assert study_record("s", [], attributes).source is None
    assert "what was known of the source is damaged" in caplog.text


def test_studies_without_source_images_are_stored_as_before() -> None:
    assert not {"source_data", "source_data_hash"} & config().to_dict().keys()
    measured = replace(config(), source_data="/birds", source_data_hash="ab")
    assert type(measured)(**measured.to_dict()) == measured
