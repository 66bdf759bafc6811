from pathlib import Path

import pytest

from nbt.report.study.cards import images as module
from nbt.report.study.cards.images import Images
from nbt.report.study.write import write_report
from tests.report.study.cards.views import content, reason, rendered
from tests.report.study.image_study import image_study, without_images, write_images
from tests.sample_study import sample_study


def test_strips_show_test_images_with_the_lowest_recall_first(tmp_path: Path) -> None:
    record = image_study(tmp_path)
    first, *others = content(Images(), record).shown
    n_test = len(record.test_predictions("recommended").labels) // 3  # type: ignore[union-attr]
    assert (first.name, first.n_wrong, first.recall) == ("blue", 1, f"{100 * (1 - 1 / n_test):.0f} % of {n_test}")
    assert [image.is_wrong for image in first.images] == [True] + [False] * (n_test - 1)
    assert {strip.recall for strip in others} == {f"100 % of {n_test}"}
    page = rendered(Images(), record)
    assert f'aria-label="{n_test} images of blue, 1 of them classified wrongly"' in page
    assert page.count('<img src="data:image/jpeg;base64,') == 3 * n_test
    assert "3 classes" in rendered(Images(), record, "md")


def test_before_the_test_the_strips_show_any_images(tmp_path: Path) -> None:
    card = content(Images(), image_study(tmp_path, test=()))
    assert [(strip.name, strip.recall, len(strip.images)) for strip in card.shown] == [
        (name, "", 7) for name in ("blue", "green", "red")
    ]
    assert not card.is_tested


def test_images_are_left_out_on_demand(tmp_path: Path) -> None:
    assert reason(Images(), without_images(image_study(tmp_path))) == "the images were left out (--no-images)"


def test_a_dataset_that_cannot_be_read_is_named() -> None:
    assert "the dataset cannot be read any more: --data-dir" in reason(Images(), sample_study())


def test_a_hostile_class_name_is_escaped(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    write_images(tmp_path, ("blue", name))
    record = image_study(tmp_path)
    page = write_report(record, tmp_path / "reports").read_text()
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img src=x" not in page


@pytest.mark.parametrize("classes", [40, 300])
def test_the_number_of_images_is_bounded(classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IMAGES", 80)
    write_images(tmp_path, tuple(f"class {i:03d}" for i in range(classes)), per_class=5)
    card = content(Images(), image_study(tmp_path))
    strips = [*card.shown, *card.folded]
    assert sum(len(strip.images) for strip in strips) <= 80
    assert (len(strips), card.n_left_out) == (min(classes, 80), max(classes - 80, 0))
