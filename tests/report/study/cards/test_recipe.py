from dataclasses import replace

from nbt.report.study.cards.recipe import Recipe
from nbt.tuning.storage.records import StudyRecord
from tests.report.study.cards.views import content, reason, rendered, texts
from tests.sample_study import DEFAULT, empty_study, sample_study, unfinished_study, with_config


def test_only_settings_that_differ_are_shown_and_all_are_folded() -> None:
    card = content(Recipe(), sample_study())
    assert {row.cells[0].note for row in card.changed.rows} == {
        "transfer_depth",
        "frozen_depth",
        "head_lr",
        "body_lr",
        "layer_lr_shape_input",
        "layer_lr_shape_middle",
        "decay_strength",
        "sp_mix",
        "label_smoothing",
        "augmentation",
    }
    rows = {row.cells[0].note: texts(row) for row in card.changed.rows}
    assert rows["frozen_depth"][1:3] == ["0.35", "0"]
    assert rows["augmentation"][1:3] == ["color", "crop"]
    assert rows["sp_mix"][0].startswith("Share of the decay"), "settings are named in words"
    listed = {texts(row)[0]: row for row in card.all.rows}
    assert len(listed) > 30 and listed["frozen_depth"].chosen and not listed["momentum"].chosen


def test_weights_that_are_random_are_not_called_pretrained() -> None:
    def meanings(record: StudyRecord) -> dict[str, str]:
        return {texts(row)[0]: texts(row)[-1] for row in content(Recipe(), record).all.rows}

    assert "keep the pretrained weights" in meanings(sample_study())["transfer_depth"]
    random = meanings(with_config(sample_study(), weights="none"))
    assert "keep the initial weights" in random["transfer_depth"]
    assert "pretrained weights" not in " ".join(random.values())


def test_default_recipe_has_the_length_of_the_study() -> None:
    record = with_config(sample_study(), epochs=30)
    longer = replace(record, finals=(replace(record.finals[1], settings=DEFAULT.replace(epochs=30)),))
    card = content(Recipe(), replace(longer, recommended="default recipe"))
    assert card.n_changed == 0
    assert "All settings are those of the default recipe." in rendered(
        Recipe(), replace(longer, recommended="default recipe")
    )


def test_settings_of_a_stream_have_the_epochs_of_one_task() -> None:
    record = with_config(sample_study(), scenario="class", tasks=4)
    listed = {texts(row)[0]: texts(row) for row in content(Recipe(), record).all.rows}
    assert listed["epochs"][1:3] == ["3", "3"]


def test_settings_of_the_best_trial_so_far_are_called_so() -> None:
    for kind in ("html", "md"):
        assert "settings of the best trial so far" in rendered(Recipe(), unfinished_study(), kind)
        assert "so far" not in rendered(Recipe(), sample_study(), kind)
    assert reason(Recipe(), empty_study()) == "no trial has run to its full length"
