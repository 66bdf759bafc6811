from pathlib import Path

import numpy as np
import pytest

from nbt.report.study.cards.mistakes import Mistakes, calibrated_probabilities
from nbt.training.metrics import Predictions
from tests.report.study.cards.views import content, reason, rendered, texts
from tests.report.study.image_study import image_study, without_images
from tests.sample_study import sample_study


def test_the_most_confident_mistakes_and_the_least_certain_images(tmp_path: Path) -> None:
    record = image_study(tmp_path)
    index = record.test_predictions("recommended").index.tolist()  # type: ignore[union-attr]
    mistakes, uncertain = content(Mistakes(), record).groups
    [row] = [texts(row) for row in mistakes.table.rows]
    assert row == [f"blue/{index[0]}.png", "blue", "green", "90.0 %"]
    assert texts(uncertain.table.rows[0])[3] == "50.0 %"
    assert not uncertain.images[0].is_wrong
    for kind in ("html", "md"):
        text = rendered(Mistakes(), record, kind)
        assert f"1 of {len(index)} test images are classified wrongly" in text
        assert f"blue/{index[0]}.png" in text.replace("<wbr>", "")
    assert 'alt="Test image of class blue"' in rendered(Mistakes(), record)


def test_without_images_the_names_remain(tmp_path: Path) -> None:
    page = rendered(Mistakes(), without_images(image_study(tmp_path)))
    assert "<img" not in page and "blue/" in page and "left out (--no-images)" in page


def test_without_the_dataset_the_indices_remain(tmp_path: Path) -> None:
    record = image_study(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "elsewhere")
    page = rendered(Mistakes(), record)
    assert "<img" not in page and ">image " in page
    assert "the dataset cannot be read any more" in page


def test_without_predictions_there_is_nothing_to_show() -> None:
    assert reason(Mistakes(), sample_study()) == "the study stores no predictions of the test images"


def test_probabilities_are_those_of_the_calibrated_model() -> None:
    predictions = Predictions(np.array([0]), np.log(np.array([[0.8, 0.2]])))
    assert calibrated_probabilities(predictions, 1.0)[0] == pytest.approx([0.8, 0.2])
    assert calibrated_probabilities(predictions, 2.0)[0] == pytest.approx([2 / 3, 1 / 3])
