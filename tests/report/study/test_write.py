import dataclasses
import io
import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from nbt.errors import NbtError
from nbt.fit import FitProfile
from nbt.report.files import report_folder
from nbt.report.study import write as writing
from nbt.report.study.write import write_report
from nbt.settings import TransferSettings
from nbt.training.export.model_folder import CARD_FILE, WEIGHTS_FILE
from nbt.tuning.storage.records import StudyRecord
from tests.fit_profiles import make_profile, profile_dict
from tests.report.study.backbone_study import OTHER, REFERENCE, backbone_study
from tests.sample_study import (
    BEST,
    DEFAULT,
    empty_study,
    evaluated_study,
    finals,
    sample_study,
    unfinished_study,
    with_config,
)

NAME = "cub-mobilenet_v2-non_binary"
ALL = {"report.html", "report.md", "recommended.yaml", "trials.csv"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_report_has_four_files(tmp_path: Path) -> None:
    path = write_report(sample_study(), tmp_path / "reports")
    assert path == tmp_path / "reports" / NAME / "report.html"
    assert names(path.parent) == ALL
    umask = os.umask(0)
    os.umask(umask)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o666 & ~umask}


def test_settings_file_round_trip(tmp_path: Path) -> None:
    folder = write_report(sample_study(), tmp_path).parent
    assert TransferSettings.load(folder / "recommended.yaml") == BEST
    comments = [line for line in (folder / "recommended.yaml").read_text().splitlines() if line.startswith("#")]
    text = "\n".join(comments)
    assert "trial 12, study cub-mobilenet_v2-non_binary" in text
    assert "dataset cub, backbone mobilenet_v2(width_mult=0.35), weights default" in text
    assert "70.6 % (95 % interval 69.6" in text
    assert "4.5 points better than the default recipe" in text


def test_settings_before_the_finals_are_of_the_best_trial(tmp_path: Path) -> None:
    folder = write_report(unfinished_study(), tmp_path).parent
    assert TransferSettings.load(folder / "recommended.yaml") == BEST
    assert "not confirmed by final runs" in (folder / "recommended.yaml").read_text()


def test_default_recipe_can_be_recommended(tmp_path: Path) -> None:
    folder = write_report(sample_study(recommended="default recipe"), tmp_path).parent
    assert TransferSettings.load(folder / "recommended.yaml") == DEFAULT
    assert "better than" not in (folder / "recommended.yaml").read_text()


def test_the_settings_of_a_training_from_scratch_say_that_the_weights_were_random(tmp_path: Path) -> None:
    first, *others = finals()
    scratch = replace(first, settings=first.settings.replace(transfer_depth=0.0))
    folder = write_report(sample_study(finals=(scratch, *others)), tmp_path).parent
    text = (folder / "recommended.yaml").read_text()
    assert "backbone mobilenet_v2(width_mult=0.35), random weights: nothing of the weights default is " in text


def test_without_recommendation_there_is_no_settings_file(tmp_path: Path) -> None:
    write_report(sample_study(), tmp_path)
    folder = write_report(empty_study(), tmp_path).parent
    assert names(folder) == ALL - {"recommended.yaml"}, "an older recommendation belongs to another study"


def test_table_contains_every_trial(tmp_path: Path) -> None:
    folder = write_report(sample_study(), tmp_path).parent
    frame = pd.read_csv(io.StringIO((folder / "trials.csv").read_text()))
    assert list(frame["number"]) == list(range(18))
    assert frame["val_accuracy"].max() == 0.712


def test_hostile_name_stays_inside_comment_and_folder(tmp_path: Path) -> None:
    record = with_config(sample_study(), name="../../x\nmomentum: 0.1\n", dataset="d\nbatch_size: 1")
    out = tmp_path / "reports"
    path = write_report(record, out)
    assert path.parent.parent == out
    assert names(tmp_path) == {"reports"}
    assert TransferSettings.load(path.parent / "recommended.yaml") == BEST


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "a\\b", "/etc"])
def test_every_name_is_one_folder_inside(name: str, tmp_path: Path) -> None:
    assert report_folder(tmp_path, name).resolve().parent == tmp_path


def test_ordinary_names_are_unchanged(tmp_path: Path) -> None:
    for name in (NAME, "mobilenet_v2(width_mult=0.35) é", "a.b"):
        assert report_folder(tmp_path, name) == tmp_path / name


def write_model_card(out: Path, settings: TransferSettings) -> Path:
    folder = out / NAME / "model"
    folder.mkdir(parents=True)
    (folder / CARD_FILE).write_text(json.dumps({"settings": settings.to_dict()}))
    (folder / WEIGHTS_FILE).write_text("weights")
    return folder


def test_other_files_are_kept_and_the_model_is_mentioned(tmp_path: Path) -> None:
    (write_model_card(tmp_path, BEST) / "weights").write_text("w")
    (tmp_path / NAME / "notes.txt").write_text("n")
    folder = write_report(sample_study(), tmp_path).parent
    assert names(folder) == ALL | {"model", "notes.txt"}
    assert (folder / "model" / "weights").read_text() == "w"
    assert "nbt predict" in (folder / "report.md").read_text()


@pytest.mark.parametrize(
    ("record", "settings"),
    [
        (sample_study(), DEFAULT),
        (sample_study(test=()), BEST),
        (unfinished_study(), BEST),
        (empty_study(), BEST),
    ],
    ids=["other settings", "before the test", "before the finals", "without recommendation"],
)
def test_model_of_another_recommendation_is_not_mentioned(
    record: StudyRecord, settings: TransferSettings, tmp_path: Path
) -> None:
    write_model_card(tmp_path, settings)
    folder = write_report(record, tmp_path).parent
    assert names(folder) > {"model"}
    for name in ("report.md", "report.html"):
        assert "nbt predict" not in (folder / name).read_text()


def test_writing_again_replaces_all_files(tmp_path: Path) -> None:
    write_report(unfinished_study(), tmp_path)
    folder = write_report(sample_study(), tmp_path).parent
    assert names(folder) == ALL
    assert "For now" not in (folder / "report.html").read_text()


@pytest.mark.parametrize("broken", ["render_html", "trials_frame"])
def test_failed_rendering_keeps_the_old_report(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_report(unfinished_study(), tmp_path).parent
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*arguments: object) -> str:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(writing, broken, fail)
    with pytest.raises(RuntimeError):
        write_report(sample_study(), tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_full_disk_keeps_the_old_report(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_report(unfinished_study(), tmp_path).parent
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    real, calls = Path.write_text, []

    def full(self: Path, text: str, **options: object) -> int:
        calls.append(self)
        if len(calls) > count:
            real(self, text[:100], **options)  # type: ignore[arg-type]
            raise OSError(28, "No space left on device")
        return real(self, text, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(NbtError, match="No space left on device"):
        write_report(sample_study(), tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_html_page_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, order = Path.replace, []

    def noted(self: Path, target: Path) -> Path:
        order.append(target.name)
        return real(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    write_report(sample_study(), tmp_path)
    assert set(order) == ALL
    assert order[-1] == "report.html"


def test_unwritable_folder_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NbtError, match="file"):
        write_report(sample_study(), tmp_path / "file")


def test_undecodable_names_do_not_prevent_the_report(tmp_path: Path) -> None:
    odd = os.fsdecode(b"/data/b\xff\xfeirds")
    record = with_config(sample_study(notes=(odd,)), dataset=odd, data_dir=odd)
    record = replace(record, trials=record.trials[:3])
    folder = write_report(record, tmp_path).parent
    assert names(folder) == ALL
    for name in ALL:
        (folder / name).read_text(encoding="utf-8")


def test_fit_profile_file_round_trip(tmp_path: Path) -> None:
    folder = write_report(sample_study(profile=profile_dict()), tmp_path).parent
    assert names(folder) == ALL | {"fit.json"}
    read = FitProfile.from_json((folder / "fit.json").read_text())
    assert read.to_dict() == make_profile().to_dict()
    write_report(sample_study(), tmp_path)
    assert names(folder) == ALL, "an older profile belongs to another study"


def test_both_reports_contain_the_stored_options(tmp_path: Path) -> None:
    record = sample_study()
    search = record.search_config().replace(storage="sqlite:///far/s.db")
    folder = write_report(dataclasses.replace(record, search=search), tmp_path).parent
    for name in ("report.html", "report.md"):
        assert "--storage sqlite:///far/s.db" in (folder / name).read_text()


def test_predictions_add_the_result_by_class_and_the_confusion_matrix(tmp_path: Path) -> None:
    folder = write_report(evaluated_study(), tmp_path).parent
    assert names(folder) == ALL | {"test_classes.csv", "test_confusion.csv"}
    confusion = pd.read_csv(folder / "test_confusion.csv", index_col="true class")
    assert list(confusion.columns) == list(confusion.index)
    assert confusion.to_numpy().sum() == 1174
    assert pd.read_csv(folder / "test_classes.csv")["images"].sum() == 1174
    write_report(sample_study(), tmp_path)
    assert names(folder) == ALL, "files of earlier predictions are removed"


def test_the_settings_file_names_the_recommended_backbone_of_several(tmp_path: Path) -> None:
    folder = write_report(backbone_study(), tmp_path).parent
    text = (folder / "recommended.yaml").read_text()
    assert TransferSettings.load(folder / "recommended.yaml").backbone == OTHER
    assert f"backbone {OTHER}, weights default" in text
    [command] = re.findall("# train a model with them: (.*)", text)
    assert command.startswith("nbt train --dataset cub --data-dir ")
    assert command.endswith(f" --backbone {OTHER} --image-size 64 --settings recommended.yaml")
    frame = pd.read_csv(folder / "trials.csv").set_index("number")
    assert (frame.loc[12, "backbone"], frame.loc[0, "backbone"]) == (OTHER, REFERENCE)
    assert f"--backbone {OTHER} --image-size 64" in (folder / "report.md").read_text()
    single = write_report(sample_study(), tmp_path / "single").parent
    assert "backbone" not in pd.read_csv(single / "trials.csv").columns
