from dataclasses import replace

import pytest

from nbt.settings import TransferSettings, repair
from nbt.training.results import EpochResult
from nbt.tuning.setting_effects import MIN_TRIALS, setting_effects
from nbt.tuning.storage.records import StudyRecord, TrialRecord
from tests.sample_study import DEFAULT, EPOCHS, sample_study, trial

RATES = (0.003, 0.01, 0.03, 0.1)


def study(n: int = 16) -> StudyRecord:
    """Returns a study in which label smoothing raises the accuracy by ten points; the head rate has no effect."""

    def run(number: int) -> TrialRecord:
        smooth = number % 2
        accuracy = 0.6 + 0.1 * smooth
        settings = TransferSettings(label_smoothing=0.1 * smooth, head_lr=RATES[number // 2 % 4], epochs=EPOCHS)
        return trial(number, settings=settings, curve=(EpochResult(EPOCHS, 1.0, 1.0, accuracy, 1.0),))

    return sample_study(trials=tuple(map(run, range(n))), dataset={"validation_images": 2000})


def test_a_setting_with_an_effect_is_distinguished_from_one_without() -> None:
    recipe = DEFAULT.replace(label_smoothing=0.1, head_lr=0.1)
    effects = setting_effects(study(), recipe, DEFAULT.replace(head_lr=0.003))
    assert set(effects) == {"label_smoothing", "head_lr"}
    smoothing, rate = effects["label_smoothing"], effects["head_lr"]
    assert smoothing.mean == pytest.approx(0.1, abs=0.03)
    assert smoothing.low is not None and smoothing.low > 0.03
    assert rate.mean == pytest.approx(0.0, abs=0.02)
    assert rate.low is not None and rate.high is not None and rate.low < 0 < rate.high


def test_an_effect_that_no_trial_shows_has_a_wide_interval() -> None:
    recipe = DEFAULT.replace(label_smoothing=0.1, batch_size=128)
    effects = setting_effects(study(), recipe, DEFAULT)
    known, unknown = (effects[name].high - effects[name].low for name in ("label_smoothing", "batch_size"))  # type: ignore[operator]
    assert unknown > 1.5 * known


def test_settings_without_effect_alone_are_left_out() -> None:
    recipe = repair(DEFAULT.replace(sp_mix=1.0, sp_depth=0.5, decay_strength=0.01))
    effects = setting_effects(study(), recipe, DEFAULT)
    assert {"sp_mix", "sp_depth"} <= set(effects)
    assert setting_effects(study(), DEFAULT, DEFAULT) == {}


def test_few_trials_have_no_effects() -> None:
    recipe = DEFAULT.replace(label_smoothing=0.1)
    assert setting_effects(study(MIN_TRIALS), recipe, DEFAULT)
    few = study(MIN_TRIALS)
    assert setting_effects(replace(few, trials=few.trials[1:]), recipe, DEFAULT) == {}
