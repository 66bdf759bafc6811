"""The model card: metadata of Hugging Face, results, and what the folder keeps of them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nbt.inference.model import load_model
from nbt.inference.model_card import complete_model_folder, model_card
from nbt.settings import TransferSettings
from nbt.training.evaluation import evaluate_model
from nbt.training.export.model_folder import MODEL_FILES, read_card, replace_folder
from nbt.tuning.finals.bootstrap import metric_intervals
from nbt.tuning.finals.test_results import ClassResult, TestResult, class_results, majority_result
from nbt.tuning.intervals import Interval
from tests.inference.conftest import Trained


def metadata(text: str) -> dict[str, Any]:
    """Returns the YAML header."""
    start, header, _ = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(header)


def result(**options: Any) -> TestResult:
    accuracy = Interval(mean=0.75, low=0.5, high=0.9, n=20)
    loss = Interval(mean=0.5, low=0.4, high=0.6, n=20)
    return TestResult(metric="log_loss", metrics={"accuracy": accuracy, "log_loss": loss}, n=20, **options)


@pytest.fixture
def card(trained: Trained) -> dict[str, Any]:
    return {**read_card(trained.folder), "weights": "default"}


def test_the_header_has_what_hugging_face_reads(card: dict[str, Any]) -> None:
    header = metadata(model_card(card, result()))
    assert header["library_name"] == "nbt"
    assert header["pipeline_tag"] == "image-classification"
    assert header["base_model"] == "conv3"
    assert header["datasets"] == ["digits"]
    assert header["metrics"] == ["log_loss", "accuracy"], "the chosen metric is first"
    assert "license" not in header
    [entry] = header["model-index"]
    [values] = entry["results"]
    assert values["dataset"] == {"name": "digits", "type": "digits", "split": "test"}
    assert values["metrics"][1] == {"type": "accuracy", "name": "Test accuracy", "value": 0.75}


def test_a_backbone_of_timm_is_named_as_in_its_collection(card: dict[str, Any]) -> None:
    header = metadata(model_card({**card, "backbone": "timm:resnet18(width=1)"}))
    assert header["base_model"] == "timm/resnet18"
    assert "timm" in header["tags"]


def test_the_card_names_the_teacher_whose_weights_were_injected(card: dict[str, Any]) -> None:
    settings = TransferSettings(init="inject", teacher="timm:vit_tiny(depth=2)=/home/me/teacher.pth").to_dict()
    text = model_card({**card, "weights": "none", "settings": settings})
    assert metadata(text)["base_model"] == "timm/vit_tiny"
    teacher = "timm:vit_tiny(depth=2)=teacher.pth"
    assert f"fine-tuned on the dataset `digits` with nbt {card['nbt']} from the backbone `conv3(width=8)`" in text
    assert f"with injected weights of the teacher `{teacher}` (TLI). The classes" in text
    assert f"- `teacher`: {teacher} (default none)\n" in text and "/home" not in text
    same = TransferSettings(init="inject", teacher=card["backbone"]).to_dict()
    assert "teacher `conv3(width=8)` (TLI)" in model_card({**card, "settings": same})


@pytest.mark.parametrize(
    "change", [{"weights": "none"}, {"settings": TransferSettings(init="kaiming", transfer_depth=0.0).to_dict()}]
)
def test_a_model_from_random_weights_has_no_base_model(card: dict[str, Any], change: dict[str, Any]) -> None:
    text = model_card({**card, **change})
    assert "base_model" not in metadata(text)
    assert "trained on the dataset `digits`" in text and "from random weights of the backbone `conv3(width=8)`" in text
    earlier = {name: value for name, value in card.items() if name != "weights"}
    assert metadata(model_card(earlier))["base_model"] == "conv3"


def test_the_body_has_results_preprocessing_and_limits(card: dict[str, Any]) -> None:
    row = ClassResult(label=0, name="a|b", images=20, predicted=10, recall=0.5, precision=1.0, f1=None, labelled=80)
    guess = TestResult(metric="log_loss", metrics={"accuracy": Interval(mean=0.25, low=0.1, high=0.4, n=20)}, n=20)
    rest = TestResult(metric="log_loss", metrics={"log_loss": Interval(mean=0.7, low=0.6, high=0.8, n=18)}, n=18)
    changed = {**card, "resize": "pad", "temperature": 1.5, "value_ranges": {"uint16": [0.0, 4095.0]}}
    text = model_card(changed, result(without_copies=rest), guess, [row])
    assert "| accuracy | 75.0 % | 50.0 % to 90.0 % | 25.0 % |" in text
    assert "| log loss | 0.500 nats | 0.400 nats to 0.600 nats | - |" in text
    assert "Without the 2 test images that have a near copy among the training images, the log loss is 0.700" in text
    assert "| a\\|b | 80 | 20 | 50.0 % | 100.0 % | - |" in text
    assert "the longer side is scaled to 28 pixels" in text
    assert "(uint16) are scaled from 0 ... 4095" in text
    assert "temperature 1.5" in text
    assert "- `head_lr`: 0.1 (default" in text
    assert "on 80 labelled images" in text


def test_the_results_are_those_of_the_calibrated_model(trained: Trained, tmp_path: Path) -> None:
    folder, task = tmp_path / "model", trained.task
    shutil.copytree(trained.folder, folder)
    predictions = evaluate_model(trained.context, trained.context.model, task.split.test).predictions
    assert predictions is not None
    test = TestResult(metric="macro_f1", metrics=metric_intervals(predictions), n=len(task.split.test))
    complete_model_folder(
        folder,
        temperature=3.0,
        test=test,
        predictions=predictions,
        majority=majority_result(predictions, [19] * 5, "macro_f1"),
        classes=class_results(predictions, task.class_names),
    )
    model = load_model(folder, "cpu")
    again = model.evaluate(task)
    assert (model.temperature, again.metric) == (3.0, "macro_f1")
    stored = model.metadata["test"]
    assert stored["images"] == again.n
    for name, interval in again.metrics.items():
        low, high = stored["metrics"][name]["low"], stored["metrics"][name]["high"]
        assert [stored["metrics"][name]["value"], low, high] == pytest.approx(
            [interval.mean, interval.low, interval.high], rel=1e-4
        ), name
    assert stored["metrics"]["log_loss"]["value"] != pytest.approx(test.metrics["log_loss"].mean, rel=1e-3)
    text = (folder / "README.md").read_text()
    assert f"| log loss | {again.metrics['log_loss'].mean:.3f} nats |" in text
    assert np.allclose(
        [row["value"] for row in metadata(text)["model-index"][0]["results"][0]["metrics"]][:1],
        again.metrics["macro_f1"].mean,
        atol=1e-4,
    )


def test_a_new_model_replaces_the_card(trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(trained.folder, folder)
    complete_model_folder(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(MODEL_FILES)
    assert "not evaluated" in (folder / "README.md").read_text()
    assert json.loads((folder / "model.json").read_text()) == read_card(trained.folder), "nothing is known to add"
    with replace_folder(folder) as temporary:
        (temporary / "model.json").write_text("{}")
    assert [path.name for path in folder.iterdir()] == ["model.json"]


def test_a_result_without_an_interval(card: dict[str, Any]) -> None:
    test = dataclasses.replace(result(), metrics={"log_loss": Interval(mean=0.5, low=None, high=None, n=20)})
    assert "| log loss | 0.500 nats | - |" in model_card(card, test)


def test_the_number_of_images_is_left_out_where_it_is_unknown(card: dict[str, Any]) -> None:
    assert f"fine-tuned on the dataset `{card['dataset']}` with" in model_card(card)


def test_the_card_says_that_its_log_loss_is_after_calibration(card: dict[str, Any]) -> None:
    assert "after calibration, as `nbt evaluate` measures" in model_card({**card, "temperature": 0.8}, result())
    assert "after calibration" not in model_card({**card, "temperature": 1.0}, result())
