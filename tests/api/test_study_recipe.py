"""`nbt.api.study_recipe`: what a training takes from a stored study."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nbt import api
from nbt.errors import UsageError
from nbt.settings import TransferSettings
from nbt.tuning.storage import studies
from tests.sample_study import BEST, empty_study, sample_study, with_config

ARTIFACTS = Path(__file__).parent.parent / "artifacts" / "c8d5bce" / "finished"


def test_the_recipe_of_a_stored_study(tmp_path: Path) -> None:
    shutil.copy(ARTIFACTS / "studies.db", tmp_path)
    storage = f"sqlite:///{tmp_path}/studies.db"
    settings, config = api.study_recipe("s", storage)
    assert settings == TransferSettings.load(ARTIFACTS / "report" / "recommended.yaml")
    assert (config.study, config.backbone) == ("s", studies.read_study(storage, "s").config.backbone)
    with pytest.raises(UsageError, match="unknown study 'z'"):
        api.study_recipe("z", storage)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (empty_study(), "recommends nothing yet"),
        (with_config(sample_study(), scenario="class", tasks=2), "is of streams of tasks; .* nbt continual --settings"),
    ],
)
def test_studies_without_a_recipe(record: object, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "read_study", lambda url, name: record)
    with pytest.raises(UsageError, match=message):
        api.study_recipe("s")


def test_before_the_finals_it_is_that_of_the_best_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    record = sample_study(finals=(), recommended=None, test=())
    monkeypatch.setattr(studies, "read_study", lambda url, name: record)
    assert api.study_recipe("s")[0] == BEST
