import pytest

from nbt.report.formatting import join_words
from nbt.report.study.recommendation import current_recommendation
from nbt.report.study.sentences import (
    importance_sentence,
    optimism,
    ranking_sentence,
    recipe_sentence,
)
from nbt.settings import TransferSettings
from tests.sample_study import (
    BEST,
    DEFAULT,
    curve,
    empty_study,
    sample_study,
    sampled,
    trial,
    unfinished_study,
)


def test_recipe_sentence() -> None:
    assert recipe_sentence(DEFAULT, None) == "It keeps all pretrained weights and freezes no units."
    assert recipe_sentence(DEFAULT.replace(frozen_depth=1.0), 3) == (
        "It keeps all pretrained weights and trains only the head."
    )
    window = DEFAULT.replace(frozen_top=0.5)
    assert recipe_sentence(window, 4) == (
        "It keeps all pretrained weights and freezes the 50 % of the units nearest to the head."
    )
    assert recipe_sentence(window.replace(frozen_depth=0.25), 4) == (
        "It keeps all pretrained weights and freezes the first 1 of 4 units and the 50 % of the units nearest to the "
        "head."
    )
    scratch = TransferSettings(transfer_depth=0.0)
    assert recipe_sentence(scratch, 3) == "It starts from random weights and freezes no units."
    injection = DEFAULT.replace(init="inject", teacher="conv4", sp_mix=0.5)
    assert "weights of conv4=w.pth (TLI)" in recipe_sentence(injection.replace(teacher="conv4=/home/me/w.pth"), 4)
    for pretrained in (True, False):
        assert recipe_sentence(injection, 4, pretrained=pretrained) == (
            "It starts from injected weights of conv4 (TLI), freezes no units and uses 50 % of the weight decay "
            "towards the initial weights (L2-SP)."
        )
    assert recipe_sentence(injection.replace(transfer_depth=0.5, sp_mix=0.0), 4) == (
        "It starts from injected weights of conv4 (TLI) in the first 2 of 4 units and freezes no units."
    )
    text = recipe_sentence(BEST, None)
    assert "first 80 % of the units, freezes the first 35 % of the units" in text
    assert "60 % of the weight decay towards the pretrained weights (L2-SP)" in text
    assert "lowest learning rate at the input of the backbone, 16 times below the highest" in text
    raised = recipe_sentence(DEFAULT.replace(layer_lr_shape=(0.0, 0.3, 0.3)), 3)
    assert raised.endswith("lowest learning rate at the input of the backbone, 2 times below the highest.")


@pytest.mark.parametrize(
    ("transfer_depth", "frozen_depth", "units", "expected"),
    [
        (0.88, 0.07, 3, "It keeps all pretrained weights and freezes no units."),
        (0.7, 0.4, 3, "It keeps the pretrained weights of the first 2 of 3 units and freezes the first 1 of 3 units."),
        (0.5, 0.9, 4, "It keeps the pretrained weights of the first 2 of 4 units and freezes the first 2 of 4 units."),
        (0.1, 0.1, 4, "It starts from random weights and freezes no units."),
        (0.9, 0.9, 4, "It keeps all pretrained weights and trains only the head."),
    ],
)
def test_depths_are_rounded_to_units_as_in_training(
    transfer_depth: float, frozen_depth: float, units: int, expected: str
) -> None:
    settings = TransferSettings(transfer_depth=transfer_depth, frozen_depth=frozen_depth)
    assert recipe_sentence(settings, units) == expected


def test_learning_rates_that_are_almost_equal_are_not_mentioned() -> None:
    assert "learning rate" not in recipe_sentence(DEFAULT.replace(layer_lr_shape=(-0.001, 0.0, 0.0)), None)


def test_optimism_of_the_selection_is_reported() -> None:
    record = sample_study()
    text = optimism(record, current_recommendation(record))
    assert "trial 12 reached 71.2 % on a single split, selected among 10 full-length trials" in text
    assert "its mean is 70.6 % (\N{MINUS SIGN}0.6 points)" in text
    default = sample_study(recommended="default recipe")
    assert optimism(default, current_recommendation(default)).startswith("In the search, the default recipe reached")
    assert optimism(unfinished_study(), current_recommendation(unfinished_study())) == ""


def test_importance_sentence_names_its_basis() -> None:
    assert "10 full-length trials" in importance_sentence(sample_study())
    assert "a hint, not a finding" in importance_sentence(sample_study())
    many = [trial(i, settings=sampled(i), curve=curve(0.5)) for i in range(30)]
    assert "hint" not in importance_sentence(sample_study(trials=tuple(many)))
    assert "too few or too similar" in importance_sentence(empty_study())


def test_ranking_sentence() -> None:
    assert "whose standard error at the best is 2.6 points" in ranking_sentence(sample_study())
    assert ranking_sentence(empty_study()) == "Full-length trials come first, by validation accuracy."


def test_lists_are_joined() -> None:
    assert [join_words(list(items)) for items in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]


def test_without_pretrained_weights_none_are_kept() -> None:
    assert recipe_sentence(DEFAULT, 4, pretrained=False) == "It starts from random weights and freezes no units."
    text = recipe_sentence(BEST, None, pretrained=False)
    assert text.startswith("It starts from random weights, freezes the first 35 % of the units")
    assert "60 % of the weight decay towards the initial weights (L2-SP)" in text
    assert "pretrained" not in text
